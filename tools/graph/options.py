"""The graph runner's options. Standard library only, so that a typo is reported before any download."""

import argparse
from pathlib import Path

from tools.comfyui.locate import is_comfyui


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="run.py graph",
        description="Run a ComfyUI graph in API format; save its results and PreciseCache's report.",
    )
    parser.add_argument("graph", type=Path, help="a graph in API format, such as workflows/api/*.json")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="change an input; NODE is an id, a class or a title, VALUE is JSON or text. Repeatable",
    )
    parser.add_argument(
        "--preset",
        help="preset of every PreciseCache LFCache: off, base, turbo, flash, budget, paper or custom; for budget also "
        "--set PreciseCacheLFCache.share=0.3, for custom PreciseCacheLFCache.alpha",
    )
    parser.add_argument("--seed", type=int, help="seed of every node that draws noise")
    parser.add_argument(
        "--out", type=Path, default=Path("output", "graph"), help="folder for the results (output/graph)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--server", metavar="HOST:PORT", default="127.0.0.1:8188", help="a running ComfyUI (127.0.0.1:8188)"
    )
    where.add_argument(
        "--comfyui",
        type=Path,
        metavar="PATH",
        help="start the ComfyUI in this folder, with its models, and stop it afterwards",
    )
    options = parser.parse_args(arguments)
    if options.comfyui is not None:
        options.comfyui = options.comfyui.expanduser().resolve()
        if not is_comfyui(options.comfyui):
            parser.error(f"--comfyui {options.comfyui}: no ComfyUI there (main.py or comfy/samplers.py is missing)")
    return options
