"""`python -m tools.demo`: sample, compare, write and print."""

import asyncio
import platform
import shlex
import signal
import sys

import numpy as np
import torch

from precisecache_core.lfcache.config import LFCacheConfig
from precisecache_core.tiny.prompts import encode_prompt
from tools.machine import describe_machine

from .embedded import EmbeddedDemo
from .options import parse
from .output import table, write_results
from .variants import measure


def say(text):
    print(text, flush=True)


async def sample_embedded(options):
    say("sampling with precisecache_core alone (embedded)")
    demo = EmbeddedDemo(options)
    return await measure(demo.sample, options.steps, options.repeats, say), "embedded"


async def sample_hosted(options):
    # aiohttp is imported here because the embedded demo does not need it
    import aiohttp

    from tools.comfyui.client import ComfyClient
    from tools.comfyui.server import ComfyServer, ServerFailed

    from .hosted import HostedDemo

    say(f"starting a headless ComfyUI: {options.host}")
    with ComfyServer(options.host, options.out / "comfyui.log") as server:
        try:
            async with ComfyClient(server) as client:
                version = client.system.get("comfyui_version", "of unknown version")
                say(f"ComfyUI {version} answers on port {server.port}")
                demo = HostedDemo(client, options)
                return await measure(demo.sample, options.steps, options.repeats, say), f"ComfyUI {version}"
        except aiohttp.ClientError as error:
            raise ServerFailed(f"lost the connection to ComfyUI ({error}):\n{server.log_tail()}") from error


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
    options = parse()
    # a terminated demo must still stop the ComfyUI that it started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        LFCacheConfig.from_preset(options.preset)
        encode_prompt(options.subject, options.color, options.motion)
        results, place = asyncio.run(sample_hosted(options) if options.host else sample_embedded(options))
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
