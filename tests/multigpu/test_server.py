"""Raylight's graph in a real ComfyUI server with this pack beside it."""

import asyncio
import os
import re
import signal
import time

import numpy as np
import psutil
import pytest

from precisecache_core.tiny.bundle import MODEL_FILE
from testkit.raylight_server import RaylightServer, tiny_graph
from testkit.tiny_host import find_host
from tools.comfyui.client import ComfyClient
from tools.comfyui.server import ServerFailed
from tools.demo.hosted import read_frames


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RaylightServer(find_host(), tmp_path_factory.mktemp("server") / "comfyui.log", [MODEL_FILE]) as server:
        yield server


async def frames(client, graph):
    outputs, seconds = await client.run(graph, "sample")
    return read_frames(await client.file(outputs["save"]["images"][0]), 8), seconds


def test_the_graph_runs_and_runs_again_after_a_worker_was_killed(server):
    async def run():
        async with ComfyClient(server) as client:
            first, _ = await frames(client, tiny_graph(MODEL_FILE.name))
            again, _ = await frames(client, tiny_graph(MODEL_FILE.name, seed=1))
            assert first.shape == (5, 64, 64, 3) and not np.array_equal(first, again)

            long = asyncio.create_task(frames(client, tiny_graph(MODEL_FILE.name, steps=400)))
            await asyncio.sleep(4)
            workers = [p for p in psutil.Process(server.process.pid).children(recursive=True) if is_worker(p)]
            print([p.name() + str(p.cmdline()) for p in psutil.Process(server.process.pid).children(recursive=True)])
            os.kill(workers[1].pid, signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(ServerFailed, match="ActorDiedError") as failure:
                await long
            print(time.monotonic() - killed, str(failure.value)[:3000])
            try:
                print("again", (await frames(client, tiny_graph(MODEL_FILE.name, seed=2)))[1])
            except ServerFailed as error:
                print("again", str(error)[:500])

    asyncio.run(run())


def is_worker(process):
    return re.match("ray::", " ".join(process.cmdline()) or process.name())
