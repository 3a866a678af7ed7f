"""Raylight's graph in a real ComfyUI server with this pack beside it."""

import asyncio

import numpy as np
import pytest

from precisecache_core.tiny.bundle import MODEL_FILE
from testkit.ray_session import children
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


def test_the_graph_runs_and_after_a_killed_worker_it_needs_new_actors(server):
    async def run():
        async with ComfyClient(server) as client:
            first, _ = await frames(client, tiny_graph(MODEL_FILE.name))
            other, _ = await frames(client, tiny_graph(MODEL_FILE.name, seed=1))
            assert first.shape == (5, 64, 64, 3) and not np.array_equal(first, other)

            long = asyncio.create_task(frames(client, tiny_graph(MODEL_FILE.name, steps=1000)))
            while not (workers := busy_workers(server)):
                await asyncio.sleep(0.1)
            workers[-1].kill()
            with pytest.raises(ServerFailed, match="ActorDiedError"):
                await asyncio.wait_for(long, 60)

            # ComfyUI keeps RayInitializer's result, the dead actors, until its inputs change or the cache is emptied
            with pytest.raises(ServerFailed, match="ActorDiedError"):
                await frames(client, tiny_graph(MODEL_FILE.name, seed=2))
            await client.session.post("/free", json={"free_memory": True, "unload_models": True})
            again, _ = await frames(client, tiny_graph(MODEL_FILE.name))
            assert np.array_equal(again, first)

    asyncio.run(run())


def busy_workers(server):
    """Raylight's actors while they sample: Ray names a process after the method that it runs."""
    return [p for p in children(server.process.pid) if "RayWorker.common_ksampler" in " ".join(p.cmdline())]
