"""A video by CogVideoX with PreciseCache, through diffusers: python cogvideox_diffusers.py "a cat on a beach".

Needs a GPU and, in the clone: pip install ".[diffusers]"
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import CogVideoXPipeline
from diffusers.utils import export_to_video

from precisecache_core import summary_line
from precisecache_core.pipelines.diffusers import apply_precisecache


def main(arguments=None):
    parser = argparse.ArgumentParser(description="A video by CogVideoX, with PreciseCache.")
    parser.add_argument("prompt")
    parser.add_argument("--model", default="THUDM/CogVideoX-5b", help="with CogVideoX-2b, --dtype float16")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16"))
    parser.add_argument("--preset", default="base", choices=("off", "base", "turbo", "flash"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("cogvideox.mp4"))
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)

    pipe = CogVideoXPipeline.from_pretrained(options.model, torch_dtype=getattr(torch, options.dtype))
    pipe.vae.enable_tiling()
    if torch.cuda.is_available():
        pipe.enable_model_cpu_offload()

    with apply_precisecache(pipe, options.preset) as cache:
        video = pipe(
            options.prompt,
            height=480,
            width=720,
            num_frames=49,
            num_inference_steps=options.steps,
            guidance_scale=6.0,
            generator=torch.Generator().manual_seed(options.seed),
        ).frames[0]

    export_to_video(video, str(options.output), fps=8)
    report = cache.report()
    options.output.with_suffix(".json").write_text(json.dumps(report, indent=1))
    print(summary_line(report["runs"][-1]))


if __name__ == "__main__":
    main()
