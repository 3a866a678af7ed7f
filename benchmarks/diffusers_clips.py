"""The clips of the comparison on a diffusers pipeline: a tiny model's on a CPU, a real one's on a GPU."""

import torch

from precisecache_core.tiny import bundle
from precisecache_core.tiny.prompts import encode_words
from testkit.diffusers_model import trained_transformer
from testkit.models import trained_model

GUIDANCE = 4.0
SHAPE = (1, 16, 4, 32, 32)


class TinyClips:
    """One of our trained models through WanPipeline. scheduler: euler or unipc."""

    def __init__(self, name, steps, scheduler="euler"):
        from diffusers import (
            AutoencoderKLWan,
            FlowMatchEulerDiscreteScheduler,
            UniPCMultistepScheduler,
            WanPipeline,
        )

        self.trained = trained_model(name)
        self.steps = steps
        self.codec = bundle.load_codec(self.trained.folder)
        shift = self.trained.shift
        schedulers = {
            "euler": FlowMatchEulerDiscreteScheduler(shift=shift),
            "unipc": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
        }
        vae = AutoencoderKLWan(base_dim=8, z_dim=SHAPE[1], dim_mult=[1, 1, 1, 1], num_res_blocks=1)  # not used
        self.pipe = WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=vae,
            scheduler=schedulers[scheduler],
            transformer=trained_transformer(self.trained.folder),
        )
        self.pipe.set_progress_bar_config(disable=True)
        latents = " x ".join(map(str, SHAPE))
        self.what = f"tiny model {name}, {type(self.pipe.scheduler).__name__}, shift {shift:g}, latents {latents}"

    def sample(self, seed):
        """The frames of a clip, (frames, height, width, 3) float in [0, 1]."""
        words = self.trained.prompt_of(seed)
        latent = self.pipe(
            prompt_embeds=encode_words(words, self.trained.words),
            negative_prompt_embeds=encode_words([""] * len(words), self.trained.words),
            height=8 * SHAPE[3],
            width=8 * SHAPE[4],
            num_frames=4 * (SHAPE[2] - 1) + 1,
            num_inference_steps=self.steps,
            guidance_scale=GUIDANCE,
            latents=torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)),
            output_type="latent",
        ).frames
        return self.codec.decode(latent)[0].permute(1, 2, 3, 0).numpy()


class RealClips:
    """A real pipeline on a GPU, one clip per prompt: the text encoder and the VAE count, as they do for its user."""

    def __init__(self, weights, prompts, steps, size, frames):
        from diffusers import DiffusionPipeline

        self.steps = steps
        # by their model cards, Wan's VAE is float32, and what surrounds HunyuanVideo's transformer float16
        others = {"Wan": {"vae": torch.float32}, "Hunyuan": {"default": torch.float16}}
        changed = next((dtypes for name, dtypes in others.items() if name.lower() in weights.lower()), {})
        dtypes = {"transformer": torch.bfloat16, "transformer_2": torch.bfloat16, "default": torch.bfloat16, **changed}
        self.pipe = DiffusionPipeline.from_pretrained(weights, torch_dtype=dtypes).to("cuda")
        self.pipe.set_progress_bar_config(disable=True)
        if hasattr(self.pipe.vae, "enable_tiling"):
            self.pipe.vae.enable_tiling()
        self.prompts = prompts
        self.given = dict(width=size[0], height=size[1], num_frames=frames, num_inference_steps=steps)
        self.what = f"{weights}, {size[0]}x{size[1]}, {frames} frames"

    def sample(self, seed):
        """The frames of a clip, (frames, height, width, 3) float in [0, 1]."""
        generator = torch.Generator("cuda").manual_seed(seed)
        prompt = self.prompts[seed % len(self.prompts)]
        return self.pipe(prompt, generator=generator, output_type="np", **self.given).frames[0]
