"""The demo without ComfyUI: the tiny model in plain PyTorch, through precisecache_core alone."""

import time

import torch

from precisecache_core import BlockCacheConfig, LFCacheConfig, flow_sigmas, guided, sample_flow
from precisecache_core.tiny import bundle
from precisecache_core.tiny.codec import CHANNELS
from precisecache_core.tiny.prompts import encode_prompt

from .variants import Take

CFG = 4.0


class EmbeddedDemo:
    """Samples the variants on the GPU if torch has one, else on the CPU."""

    def __init__(self, options):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.preset = options.preset
        words = encode_prompt(options.subject, options.color, options.motion)
        self.network = bundle.load_model().to(self.device)
        self.denoise = guided(self.network, words.to(self.device), encode_prompt().to(self.device), CFG)
        self.codec = bundle.load_codec().to(self.device)
        generator = torch.Generator().manual_seed(options.seed)
        self.noise = torch.randn(1, CHANNELS, *options.size, generator=generator).to(self.device)

    async def sample(self, variant, steps, on_step):
        lfcache = LFCacheConfig.from_preset(variant.preset or self.preset) if variant.lfcache else None
        blockcache = BlockCacheConfig() if variant.blockcache else None
        sigmas = flow_sigmas(steps, bundle.SHIFT).to(self.device)
        self._wait()
        start = time.perf_counter()
        latent, run = sample_flow(
            self.denoise,
            self.noise,
            sigmas,
            lfcache,
            blockcache,
            self.network.blocks,
            model_name="TinyVideoModel",
            on_step=lambda step: on_step(step, steps),
        )
        self._wait()
        seconds = time.perf_counter() - start
        video = self.codec.decode(latent)[0]
        return Take(video.permute(1, 2, 3, 0).cpu().numpy(), seconds, run)

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
