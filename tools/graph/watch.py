"""`run.py graph --watch FOLDER`: runs what is in a folder, one after another, and says at the end what it saved."""

import asyncio
import time

import aiohttp

from tools.comfyui.client import ComfyClient
from tools.comfyui.server import ServerFailed, ServerLost

from . import overrides
from .execution import START_SECONDS, connect, execute, stop_on_signals
from .outcome import Outcome, table
from .progress import Progress

POLL_SECONDS = 1.0  # between two looks at the folder
RETURN_SECONDS = 120  # for how long a lost server that is not ours may take to come back
# of one graph; a ValueError may also be an answer of the server that is no JSON
FAILURES = (ValueError, ServerFailed, OSError, aiohttp.ClientError, asyncio.TimeoutError)


class Stopped(Exception):
    """The user ended the watch."""


class Watch:
    """Runs the files of a folder on one server until it is stopped, or with `--once` until all have run.

    pause: waits for so many seconds between two looks at the folder.
    """

    def __init__(self, options, server, files, pause=asyncio.sleep):
        self.options = options
        self.server = server
        self.files = files
        self.pause = pause
        self.outcomes = []
        self.is_lost = False  # whether the server was gone at the end of the last run

    async def run(self):
        """Run until the end and print the table; returns the outcomes. Raises ServerFailed and Stopped."""
        stop_on_signals()
        try:
            async with connect(self.options, self.server):
                pass  # fails at once without a server, also while the folder is empty
            print(f"{self.options.watch}: {self.files.kind} run one after another", flush=True)
            await self._work()
        except asyncio.CancelledError as error:
            raise Stopped from error
        finally:
            if self.outcomes:
                print("", *table(self.outcomes), sep="\n", flush=True)
        return self.outcomes

    async def _work(self):
        is_idle = False
        while True:
            ready, is_incomplete = self.files.folder.look()
            if ready:
                await self._take(ready[0])
                is_idle = False
                continue
            if self.options.once and not is_incomplete:
                if not self.outcomes:
                    print(f"there are no {self.files.kind} in {self.options.watch}", flush=True)
                return
            if not is_idle and not is_incomplete:
                is_idle = True
                print("\nwaiting for more; Ctrl+C ends", flush=True)
            await self.pause(POLL_SECONDS)

    async def _take(self, path):
        """Run all jobs of a file. Raises ServerLost if the server stays away, CancelledError."""
        self.files.folder.take(path)
        try:
            jobs = self.files.jobs(path)
        except overrides.OverrideError as error:
            print(f"\n{path.name}", flush=True)
            self._end(path.name, "failed", reason=error)
            return
        for number, job in enumerate(jobs):
            try:
                await self._recover()
            except ServerLost:
                self.outcomes += [Outcome(left.name, "not run") for left in jobs[number:]]
                raise
            await self._run(job)

    async def _run(self, job):
        """Run a job and note its outcome; only CancelledError is raised."""
        print(f"\n{job.title}", flush=True)
        progress, start = None, time.perf_counter()
        state, reason, paths = "stopped", "", ()
        try:
            graph = job.make()
            progress = Progress(graph)
            async with connect(self.options, self.server, progress.take) as client:
                start = time.perf_counter()
                paths = await execute(client, graph, progress, job.folder)
            state = "done"
            job.done()
        except FAILURES as error:
            state, reason = "failed", error
            self.is_lost = isinstance(error, (ServerLost, aiohttp.ClientConnectionError))
        finally:
            runs = list(progress.runs.values()) if progress else []
            self._end(job.name, state, time.perf_counter() - start, runs, reason)
        for path in paths:
            print(f"wrote {path}", flush=True)

    def _end(self, name, state, seconds=0.0, runs=(), reason=""):
        outcome = Outcome(name, state, seconds, list(runs), f"{reason}" or type(reason).__name__ * bool(reason))
        self.outcomes.append(outcome)
        print(f"failed: {outcome.reason}" if state == "failed" else outcome.line(), flush=True)

    async def _recover(self):
        """After a lost connection: start our server again, or wait for the user's. Raises ServerLost."""
        if not self.is_lost:
            return
        patience = RETURN_SECONDS
        if self.options.comfyui is not None:
            print("\nthe connection to ComfyUI was lost: starting it again", flush=True)
            self.server.restart()
            patience = START_SECONDS
        else:
            print(f"\nwaiting for the ComfyUI at {self.server.address} to come back", flush=True)
        async with ComfyClient(self.server, patience=patience):
            self.is_lost = False
