"""`python -m tools.demo`: sample, compare, write and print."""

import asyncio
import os
import platform
import shlex
import signal
import sys
import time
from contextlib import AsyncExitStack

import numpy as np
import torch

from precisecache_core.lfcache.config import LFCacheConfig
from precisecache_core.tiny.prompts import encode_prompt
from tools.machine import describe_machine
from tools.phases import Phase, duration

from .embedded import EmbeddedDemo
from .options import STARTED, parse
from .output import table, write_film, write_results
from .variants import measure


def say(text):
    print(text, flush=True)


async def sample_embedded(options, on_first):
    say("sampling with precisecache_core alone (embedded)")
    demo = EmbeddedDemo(options)
    return await measure(demo.sample, options.steps, options.repeats, on_first), "embedded"


async def sample_hosted(options, on_first):
    # aiohttp is imported here because the embedded demo does not need it
    import aiohttp

    from tools.comfyui.client import ComfyClient
    from tools.comfyui.server import ComfyServer, ServerFailed

    from .hosted import HostedDemo

    with ComfyServer(options.host, options.out / "comfyui.log") as server:
        try:
            async with AsyncExitStack() as stack:
                with Phase(f"starting a headless ComfyUI from {options.host}") as phase:
                    client = await stack.enter_async_context(ComfyClient(server))
                    version = client.system.get("comfyui_version", "of unknown version")
                    phase.result = f"ComfyUI {version} answers on port {server.port}"
                demo = HostedDemo(client, options)
                return await measure(demo.sample, options.steps, options.repeats, on_first), f"ComfyUI {version}"
        except aiohttp.ClientError as error:
            raise ServerFailed(f"lost the connection to ComfyUI ({error}):\n{server.log_tail()}") from error


def write_first(folder, result, started):
    """Write the first clip by itself and print how long the user waited for it; started: seconds since the epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.variant.name}.webp"
    write_film(path, result.video)
    say(f"first picture after {duration(time.time() - started)}: {path}")


def print_summary(options, results, rows, place):
    """Print the table and how it was measured, and write the same text to summary.txt."""
    is_bytes = results[0].frames.dtype == np.uint8
    frames, height, width = results[0].frames.shape[:3]
    lines = [
        table(rows, options.steps),
        "",
        f"computed, reused: model calls of {options.steps} Euler steps, LFCache preset {options.preset}",
        "flash: LFCache preset turbo and BlockCache; blocks skipped: share of the blocks in its computed calls",
        f"seconds: in the sampler, best of {options.repeats}, trials included; time ratio: over uncached",
        f"PSNR, SSIM: against the uncached video, {frames} frames of {width} x {height}, "
        + ("8-bit frames" if is_bytes else "float frames"),
        f"versions: Python {platform.python_version()}, torch {torch.__version__}, {place}",
        f"machine: {describe_machine()}",
        f"command: {shlex.join(['python3', 'run.py', 'demo', *sys.argv[1:]])}",
    ]
    lines += [f"warning: {text}" for r in results if r.run for text in r.run["warnings"]]
    text = "\n".join(lines)
    (options.out / "summary.txt").write_text(text + "\n", encoding="utf-8")
    say(f"\n{text}\n")
    for name in ("comparison.webp", "plot.png", "report.json", "summary.txt"):
        say(f"wrote {options.out / name}")


def main():
    options, started = parse(), float(os.environ.get(STARTED, time.time()))
    # a terminated demo must still stop the ComfyUI that it started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        LFCacheConfig.from_preset(options.preset)
        encode_prompt(options.subject, options.color, options.motion)
        sample = sample_hosted if options.host else sample_embedded
        results, place = asyncio.run(sample(options, lambda result: write_first(options.out, result, started)))
        rows = write_results(options.out, results, options.steps)
    except (ValueError, RuntimeError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    print_summary(options, results, rows, place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
