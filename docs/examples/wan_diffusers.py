"""A video by Wan 2.1 with PreciseCache, through diffusers: python wan_diffusers.py "a cat on a beach".

Needs a GPU and, in the clone: pip install ".[diffusers]"
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from diffusers.utils import export_to_video

from precisecache_core import summary_line
from precisecache_core.pipelines.diffusers import apply_precisecache

NEGATIVE = "overexposed, static, blurred details, subtitles, worst quality, low quality, jpeg artifacts"


def main(arguments=None):
    parser = argparse.ArgumentParser(description="A video by Wan, with PreciseCache.")
    parser.add_argument("prompt")
    parser.add_argument("--model", default="Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    parser.add_argument("--preset", default="base", choices=("off", "base", "turbo", "flash"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("wan.mp4"))
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)

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
    report = cache.report()
    options.output.with_suffix(".json").write_text(json.dumps(report, indent=1))
    print(summary_line(report["runs"][-1]))


if __name__ == "__main__":
    main()
