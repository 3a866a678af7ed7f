"""`python3 run.py graph GRAPH`: run a graph in API format and save its results."""

import asyncio
import json
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import aiohttp

from tools.comfyui.client import ComfyClient
from tools.comfyui.server import RunningServer, ServerFailed, UsersComfyServer

from . import overrides
from .options import parse
from .progress import Progress

ANSWER_SECONDS = 15  # a server that is already running accepts a connection at once


def read_graph(options):
    """The graph with the changes that the options ask for. Raises OverrideError."""
    try:
        graph = json.loads(options.graph.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise overrides.OverrideError(f"cannot read {options.graph}: {error}") from error
    overrides.check(graph)
    if options.preset is not None:
        overrides.set_preset(graph, options.preset)
    if options.seed is not None:
        overrides.set_seed(graph, options.seed)
    for text in options.set:
        overrides.apply(graph, *overrides.parse(text))
    return graph


async def run(options, graph, server):
    """Run the graph, print what the cache did, save files and reports; returns their paths."""
    patience = 600 if options.comfyui else ANSWER_SECONDS
    progress = Progress(graph)
    async with ComfyClient(server, progress.take, patience) as client:
        task = asyncio.current_task()
        with suppress(NotImplementedError):  # Windows has none: Ctrl+C ends the run there too
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            outputs, _ = await client.run(graph)
        except asyncio.CancelledError:
            await client.stop()
            raise
        progress.results(outputs)
        return [path for node, output in outputs.items() for path in await save(client, options.out, node, output)]


async def save(client, folder, node, output):
    """Write the files, reports and comparison of one node's output into the folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for entry in (item for items in output.values() if isinstance(items, list) for item in items):
        if isinstance(entry, dict) and entry.get("filename") and entry.get("type") == "output":
            paths.append(folder / Path(entry["filename"]).name)
            paths[-1].write_bytes(await client.file(entry))
    results = {
        "report": output.get("precisecache", ()),
        "comparison": [entries] if (entries := output.get("precisecache_compare")) else (),
    }
    for kind, found in results.items():
        for number, result in enumerate(found):
            suffix = f"_{number}" if number else ""
            paths.append(folder / f"precisecache_{kind}_{Path(node.replace(':', '_')).name}{suffix}.json")
            paths[-1].write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return paths


def main(arguments=None):
    options = parse(arguments)
    try:
        graph = read_graph(options)
        with tempfile.TemporaryDirectory(prefix="precisecache-", ignore_cleanup_errors=True) as folder:
            server = (
                UsersComfyServer(options.comfyui, Path(folder) / "comfyui.log")
                if options.comfyui
                else RunningServer(options.server)
            )
            with server:
                paths = asyncio.run(run(options, graph, server))
    except (overrides.OverrideError, ServerFailed, OSError, aiohttp.ClientError) as error:
        print(f"\ngraph: {error}", file=sys.stderr)
        return 2 if isinstance(error, overrides.OverrideError) else 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("\ngraph: stopped", file=sys.stderr)
        return 130
    for path in paths:
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
