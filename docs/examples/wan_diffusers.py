"""A video by Wan 2.1 with PreciseCache, through diffusers: python wan_diffusers.py "a cat on a beach".

Needs a GPU and, in the clone: pip install ".[diffusers]" ftfy imageio imageio-ffmpeg
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from diffusers.utils import export_to_video

from precisecache_core.pipelines.diffusers import apply_precisecache

NEGATIVE = "overexposed, static, blurred details, subtitles, worst quality, low quality, jpeg artifacts"


def main(arguments=None):
    parser = argparse.ArgumentParser(description="A video by Wan, with PreciseCache.")
    parser.add_argument("prompt")
    parser.add_argument("--model", default="Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    parser.add_argument("--preset", default="base", help="off, base, turbo or flash")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("wan.mp4"))
    options = parser.parse_args(arguments)

    vae = AutoencoderKLWan.from_pretrained(options.model, subfolder="vae", torch_dtype=torch.float32)
    pipe = WanPipeline.from_pretrained(options.model, vae=vae, torch_dtype=torch.bfloat16)
    if torch.cuda.is_available():
        pipe.enable_model_cpu_offload()

    with apply_precisecache(pipe, options.preset) as cache:
        video = pipe(
            options.prompt,
            negative_prompt=NEGATIVE,
            height=480,
            width=832,
            num_frames=81,
            num_inference_steps=options.steps,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(options.seed),
        ).frames[0]

    export_to_video(video, str(options.output), fps=16)
    options.output.with_suffix(".json").write_text(json.dumps(cache.report(), indent=1))
    print(f"wrote {options.output} and its report")


if __name__ == "__main__":
    main()
