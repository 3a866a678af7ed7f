"""Runs one graph on a server and saves its results."""

import asyncio
import json
import signal
from contextlib import suppress
from pathlib import Path

import aiohttp

from tools.comfyui.client import ComfyClient
from tools.comfyui.server import ServerLost

from . import overrides

ANSWER_SECONDS = 15  # a server that is already running accepts a connection at once
START_SECONDS = 600  # one that is started here may first have to import much
LAST_EVENT_SECONDS = 1.5  # the pack sends the last event of a run at most 1 s after its end


def read_graph(path, options):
    """The graph in this file with the changes that the options ask for. Raises OverrideError."""
    try:
        graph = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise overrides.OverrideError(f"cannot read {path}: {error}") from error
    overrides.check(graph)
    if options.preset is not None:
        overrides.set_preset(graph, options.preset)
    if options.seed is not None:
        overrides.set_seed(graph, options.seed)
    for text in options.set:
        overrides.apply(graph, *overrides.parse(text))
    return graph


def connect(options, server, on_event=lambda text: None):
    """A client of the server that the options name or have had started."""
    is_ours = options.comfyui is not None
    return ComfyClient(server, on_event, START_SECONDS if is_ours else ANSWER_SECONDS, is_starting=is_ours)


def stop_on_signals():
    """Make Ctrl+C and SIGTERM cancel the current task, which can then interrupt its prompt."""
    task = asyncio.current_task()
    with suppress(NotImplementedError):  # Windows has none: Ctrl+C ends the run there too
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def execute(client, graph, progress, folder):
    """Run the graph, print what the cache did, save files and reports into the folder; returns their paths."""
    try:
        outputs, _ = await client.run(graph)
        progress.results(outputs)
        if progress.is_waiting:
            await client.listen(lambda: progress.is_waiting, LAST_EVENT_SECONDS)
        return [path for node, output in outputs.items() for path in await save(client, folder, node, output)]
    except asyncio.CancelledError:
        with suppress(aiohttp.ClientError, asyncio.TimeoutError):
            await client.stop()
        raise
    except aiohttp.ClientConnectionError as error:
        raise ServerLost(f"lost the connection to ComfyUI: {error}") from error
    finally:
        progress.end()


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
