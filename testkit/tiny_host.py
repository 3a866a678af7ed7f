"""A tiny model in a real ComfyUI in this process, for benchmarks and tests."""

import logging
import sys

import torch

from precisecache_core.tiny.prompts import encode_words
from testkit.models import DEFAULT, trained_model
from testkit.pack import ROOT
from tools.comfyui.locate import find_comfyui

OLDEST = (0, 33)  # ComfyUI; older ones lack models and block details that the benchmarks need


def find_host():
    """The ComfyUI to run in, or None (see `tools.comfyui.locate`)."""
    return find_comfyui(ROOT)


def enter_host(host, is_fused=False, is_cpu=True):
    """Make the host importable, ahead of our folder `nodes`. Call this before any import of the host.

    is_cpu: keep the host off the GPU.
    is_fused: use PyTorch's fused attention, the host's own choice on most GPUs; on a CPU it would
        choose another, half as fast.
    """
    if str(host) not in sys.path:
        sys.path.insert(0, str(host))
    from comfy.cli_args import args

    args.cpu = is_cpu
    args.use_pytorch_cross_attention |= is_fused


def open_bench(is_fused=True, model=DEFAULT):
    """The model of this name in the host, for a command that only measures; exits if it or the host is missing."""
    host = find_host()
    if host is None:
        sys.exit("this benchmark needs a ComfyUI: set COMFYUI_PATH")
    trained_model(model)  # ends the program before anything is changed
    enter_host(host, is_fused=is_fused)
    logging.disable(logging.INFO)
    torch.set_grad_enabled(False)
    return TinyHost(model)


class TinyHost:
    """A tiny model and its conditioning, sampled as by the stock nodes.

    model: its name in `testkit.models`. The program ends if its files are missing.
    """

    def __init__(self, model=DEFAULT):
        self.trained = trained_model(model)
        from PreciseCache.nodes.host import attachment, reports, tiny_model
        from PreciseCache.precisecache_core.blockcache.config import BlockCacheConfig
        from PreciseCache.precisecache_core.lfcache.config import LFCacheConfig

        self.tiny, self.attachment, self.reports = tiny_model, attachment, reports
        self.config, self.block_config = LFCacheConfig, BlockCacheConfig
        self.model = self.tiny.load_model(self.trained.folder, self.trained.shift)
        self.vae = self.tiny.load_vae(self.trained.folder)
        self.ask(*self.trained.first)

    def ask(self, *words):
        """Ask for a clip by all words of its prompt."""
        self.positive, self.negative = (
            [[encode_words(chosen, self.trained.words), {}]] for chosen in (words, [""] * len(words))
        )

    def ask_for(self, seed):
        """Ask for the clip of a seed: the seed chooses the words of the prompt."""
        self.ask(*self.trained.prompt_of(seed))

    def lfcache(self, model=None, **settings):
        """The tiny model with LFCache."""
        return self.attachment.attach(model or self.model, lfcache=self.config(**settings))

    def blockcache(self, model=None, **settings):
        """A model, the tiny one by default, with BlockCache."""
        return self.attachment.attach(model or self.model, blockcache=self.block_config(**settings))

    def report(self, model):
        """The report entry of the last run of a model from `lfcache`."""
        return self.reports.runs_of(self.attachment.attachment_of(model).id)[-1]

    @staticmethod
    def noise(shape=(1, 16, 2, 8, 8), seed=0):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def sample(
        self,
        model,
        sampler="euler",
        scheduler="simple",
        steps=10,
        cfg=4.0,
        noise=None,
        denoise=1.0,
        latent=None,
        seed=0,
        **kwargs,
    ):
        """Sample as KSampler does; returns the latent that it would output."""
        import comfy.sample

        noise = self.noise() if noise is None else noise
        latent = torch.zeros_like(noise) if latent is None else latent
        return comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler,
            scheduler,
            self.positive,
            self.negative,
            latent,
            denoise=denoise,
            seed=seed,
            disable_pbar=True,
            **kwargs,
        )

    def shifted(self, shift):
        """The tiny model with another flow shift, as the stock ModelSamplingSD3 node sets it."""
        sampling = self.model.get_model_object("model_sampling")
        other = type(sampling)(self.model.model.model_config)
        other.set_parameters(shift=shift)
        model = self.model.clone()
        model.add_object_patch("model_sampling", other)
        return model
