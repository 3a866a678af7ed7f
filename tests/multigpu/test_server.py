"""Raylight's graph in a real ComfyUI server with this pack beside it."""

import asyncio

import numpy as np
import pytest

from precisecache_core.tiny.bundle import MODEL_FILE
from testkit.ray_session import children
from testkit.raylight_server import RaylightServer, cached_graph, tiny_graph
from testkit.tiny_host import find_host
from tools.comfyui.client import ComfyClient
from tools.comfyui.server import ServerFailed
from tools.demo.hosted import read_frames


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RaylightServer(find_host(), tmp_path_factory.mktemp("server") / "comfyui.log", [MODEL_FILE]) as server:
        yield server


NAME = MODEL_FILE.name


@pytest.fixture(scope="module")
def in_server(server):
    """in_server(test): runs test(frames, client), where `await frames(graph)` is (frames, outputs)."""

    def run(test):
        async def connected():
            async with ComfyClient(server) as client:

                async def frames(graph):
                    outputs, _ = await client.run(graph)
                    return read_frames(await client.file(outputs["save"]["images"][0]), 8), outputs

                await test(frames, client)

        asyncio.run(connected())

    return run


def reported(outputs):
    """The runs in the report of node "stats"."""
    return outputs["stats"]["precisecache"][0]["runs"]


def test_the_graph_runs_with_the_caches_and_without_them_as_before(in_server):
    async def test(frames, _):
        first, _ = await frames(tiny_graph(NAME, steps=12))
        other, _ = await frames(tiny_graph(NAME, steps=12, seed=1))
        assert first.shape == (5, 64, 64, 3) and not np.array_equal(first, other)

        cached, outputs = await frames(cached_graph(NAME, steps=12))
        (run,) = reported(outputs)
        assert run["reused"] and run["blockcache"]["block_calls_skipped"] and run["warnings"] == []
        assert run["nodes"] == ["lfcache", "blockcache"] and run["sampler"] == "sample"
        assert not np.array_equal(cached, first)

        # ComfyUI takes the sampler's result from its own cache, and with it the report
        more = cached_graph(NAME, steps=12)
        more["stats"]["inputs"]["samples"] = ["sample", 0]
        more["second"] = more.pop("stats")
        _, outputs = await frames(more)
        assert [found["run"] for found in outputs["second"]["precisecache"][0]["runs"]] == [run["run"]]

        again = tiny_graph(NAME, steps=12)
        again["sample"]["inputs"]["end_at_step"] = 9999  # so that ComfyUI samples again
        assert np.array_equal((await frames(again))[0], first)

    in_server(test)


def test_after_a_killed_worker_the_graph_needs_new_actors(server, in_server):
    async def test(frames, client):
        cached, _ = await frames(cached_graph(NAME, steps=12))
        long = asyncio.create_task(frames(cached_graph(NAME, steps=1000)))
        while not (workers := busy_workers(server)):
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        workers[-1].kill()
        with pytest.raises(ServerFailed, match="ActorDiedError"):
            await asyncio.wait_for(long, 30)

        # ComfyUI keeps RayInitializer's result, the dead actors, until its inputs change or the cache is emptied
        with pytest.raises(ServerFailed, match="ActorDiedError"):
            await frames(cached_graph(NAME, seed=2))
        await client.session.post("/free", json={"free_memory": True, "unload_models": True})
        again, outputs = await frames(cached_graph(NAME, steps=12))
        (run,) = reported(outputs)
        assert np.array_equal(again, cached) and run["reused"]

    in_server(test)


def busy_workers(server):
    """Raylight's actors while they sample: Ray names a process after the method that it runs."""
    return [p for p in children(server.process.pid) if "RayWorker.common_ksampler" in " ".join(p.cmdline())]
