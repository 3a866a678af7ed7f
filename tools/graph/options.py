"""The graph runner's options. Standard library only, so that a typo is reported before any download."""

import argparse
from pathlib import Path

from tools.comfyui.address import parse_address
from tools.comfyui.locate import is_comfyui


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="run.py graph",
        description="Run a ComfyUI graph in API format, or a folder of graphs or prompts; save the results and "
        "PreciseCache's report.",
    )
    parser.add_argument(
        "graph", type=Path, nargs="?", help="a graph in API format, such as workflows/api/*.json; optional with --watch"
    )
    parser.add_argument(
        "--watch",
        type=Path,
        metavar="FOLDER",
        help="run every *.json in this folder, or with GRAPH run GRAPH with every line of its *.txt as the prompt; "
        "files that come later or change run too, until Ctrl+C; ends with a table of the time saved",
    )
    parser.add_argument("--once", action="store_true", help="with --watch: end when all files there have run")
    parser.add_argument(
        "--prompt-input",
        metavar="NODE.INPUT",
        help="with GRAPH and --watch: the input that takes the prompt (the text of the positive prompt)",
    )
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
        "--out",
        type=Path,
        default=Path("output", "graph"),
        help="folder for the results (output/graph); with --watch a folder in it for each file and prompt",
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
    check_watch(parser, options)
    try:
        options.server = parse_address(options.server)
    except ValueError as error:
        parser.error(f"--server {options.server!r}: {error}")
    if options.comfyui is not None:
        options.comfyui = options.comfyui.expanduser().resolve()
        if not is_comfyui(options.comfyui):
            parser.error(f"--comfyui {options.comfyui}: no ComfyUI there (main.py or comfy/samplers.py is missing)")
    return options


def check_watch(parser, options):
    """End the program if what is to run is not said, or said in a way that does not fit."""
    if options.watch is None:
        if options.graph is None:
            parser.error("what is to run? Give a GRAPH, or with --watch a FOLDER of graphs")
        if options.once or options.prompt_input is not None:
            parser.error(f"{'--once' if options.once else '--prompt-input'} needs --watch FOLDER")
    elif not options.watch.is_dir():
        parser.error(f"--watch {options.watch}: there is no such folder")
    elif options.prompt_input is not None and options.graph is None:
        parser.error("--prompt-input needs the GRAPH that is to run with the prompts")
    if options.graph is not None and options.graph.is_dir():
        parser.error(f"{options.graph} is a folder: give it with --watch")
