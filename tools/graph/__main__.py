"""`python3 run.py graph GRAPH`: run a graph in API format, or a folder of them, and save the results."""

import asyncio
import io
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from tools.comfyui.server import RunningServer, ServerFailed, UsersComfyServer

from .execution import connect, execute, read_graph, stop_on_signals
from .jobs import GraphFiles, PromptFiles
from .options import parse
from .outcome import Outcome
from .overrides import OverrideError
from .progress import Progress
from .watch import Stopped, Watch


async def run_one(options, graph, server):
    """Run the graph, save its results and print what the cache did and which files were written."""
    progress = Progress(graph)
    async with connect(options, server, progress.take) as client:
        stop_on_signals()
        start = time.perf_counter()
        paths = await execute(client, graph, progress, options.out)
    print(Outcome(options.graph.name, "done", time.perf_counter() - start, list(progress.runs.values())).line())
    for path in paths:
        print(f"wrote {path}")


def run(options):
    """Do what the options ask for; returns the exit status. Raises OverrideError, ServerFailed, Stopped and others."""
    files = graph = None
    if options.watch is None:
        graph = read_graph(options.graph, options)
    else:
        files = PromptFiles(options) if options.graph else GraphFiles(options)
    with tempfile.TemporaryDirectory(prefix="precisecache-", ignore_cleanup_errors=True) as folder:
        server = (
            UsersComfyServer(options.comfyui, Path(folder) / "comfyui.log")
            if options.comfyui
            else RunningServer(options.server)
        )
        with server:
            if files is None:
                asyncio.run(run_one(options, graph, server))
                return 0
            outcomes = asyncio.run(Watch(options, server, files).run())
            return int(any(outcome.state != "done" for outcome in outcomes))


def main(arguments=None):
    options = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a prompt or title need not fit the encoding of a pipe
    try:
        return run(options)
    except (OverrideError, ServerFailed, OSError, aiohttp.ClientError) as error:
        print(f"\ngraph: {error}", file=sys.stderr)
        return 2 if isinstance(error, OverrideError) else 1
    except (asyncio.CancelledError, KeyboardInterrupt, Stopped):
        print("\ngraph: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
