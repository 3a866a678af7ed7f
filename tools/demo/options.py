"""The demo's options. Standard library only, so that a typo is reported before any download."""

import argparse
import re
from pathlib import Path

from tools.comfyui.locate import find_comfyui, is_comfyui

ROOT = Path(__file__).resolve().parents[2]
STARTED = "PRECISECACHE_STARTED"  # environment variable: when run.py started, in seconds since the epoch


def latent_size(text):
    """`4x32x32` (or with commas) as (T, H, W)."""
    if not re.fullmatch(r"\d+[x,]\d+[x,]\d+", text):
        raise argparse.ArgumentTypeError(f"expected T,H,W such as 4,32,32, got {text!r}")
    frames, height, width = (int(n) for n in re.split("[x,]", text))
    if frames < 1 or min(height, width) < 2:
        raise argparse.ArgumentTypeError("needs at least 1 latent frame of 2 x 2")
    return frames, height, width


def count(text):
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def parse(arguments=None):
    """The options as a namespace, with `host`: the ComfyUI folder to use, or None.

    Words and presets are checked by the code that knows them; its error message lists them.
    """
    parser = argparse.ArgumentParser(
        prog="run.py demo",
        allow_abbrev=False,
        description="Sample the bundled tiny video model without a cache, with LFCache and with LFCache and "
        "BlockCache (flash), and compare. Uses a headless ComfyUI where one is found, else plain PyTorch.",
    )
    parser.add_argument("--steps", type=count, default=50, help="sampling steps (50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (0)")
    parser.add_argument("--subject", default="triangle", help="what moves: circle, square, triangle (triangle)")
    parser.add_argument(
        "--color", default="orange", help="its colour: red, orange, yellow, green, blue, purple (orange)"
    )
    parser.add_argument("--motion", default="right", help="how it moves: left, right, up, down, grow (right)")
    parser.add_argument(
        "--preset", default="base", help="LFCache's preset in the second video: base, turbo, budget or paper (base)"
    )
    parser.add_argument(
        "--size",
        type=latent_size,
        default=(4, 32, 32),
        metavar="T,H,W",
        help="latent size; the default, 4,32,32, is 13 frames of 256 x 256 pixels",
    )
    parser.add_argument("--repeats", type=count, default=2, help="how often each variant is timed (2)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("output", "demo"),
        help="folder for the results, relative to the pack's folder (output/demo)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--embedded", action="store_true", help="use plain PyTorch even where a ComfyUI is found")
    where.add_argument("--comfyui", type=Path, metavar="PATH", help="the ComfyUI to use")
    options = parser.parse_args(arguments)
    options.out = (ROOT / options.out).resolve()
    options.host = None
    if options.comfyui:
        options.host = options.comfyui.expanduser().resolve()
        if not is_comfyui(options.host):
            parser.error(f"--comfyui {options.comfyui}: no ComfyUI there (main.py or comfy/samplers.py is missing)")
    elif not options.embedded:
        options.host = find_comfyui(ROOT)
    return options
