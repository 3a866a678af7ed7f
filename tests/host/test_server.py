"""The shipped API graph in a headless ComfyUI server, as a script would use it."""

import asyncio

import numpy as np
import pytest

from testkit.tiny_host import find_host
from tools.comfyui.client import ComfyClient
from tools.comfyui.server import ComfyServer, ServerFailed
from tools.demo.hosted import read_frames
from tools.graph.shipped import bypass, load_flash, load_step_cache, only_node, set_inputs


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ComfyServer(find_host(), tmp_path_factory.mktemp("server") / "comfyui.log") as server:
        yield server


def small_graph(**lfcache):
    graph = load_step_cache()
    set_inputs(graph, "EmptyHunyuanLatentVideo", width=64, height=64, length=5)
    set_inputs(graph, "KSampler", steps=12)
    set_inputs(graph, "PreciseCacheLFCache", **lfcache)
    return graph


def queue(server, *graphs):
    """[(frames, report)] of graphs run one after another."""

    async def run():
        async with ComfyClient(server) as client:
            found = []
            for graph in graphs:
                outputs, _ = await client.run(graph, only_node(graph, "KSampler"))
                saved = outputs[only_node(graph, "SaveAnimatedWEBP")]["images"][0]
                report = outputs[only_node(graph, "PreciseCacheStats")]["precisecache"][0]
                found.append((read_frames(await client.file(saved), 8), report))
            return found

    return asyncio.run(run())


def test_the_graph_runs_and_reports_in_the_history(server):
    (frames, report), (again, _) = queue(server, *[small_graph(preset="turbo")] * 2)
    assert frames.shape == (5, 64, 64, 3) and np.array_equal(frames, again)
    (run,) = report["runs"]
    assert run["calls"] == run["steps"] == 12 and run["reused"] > 0 and run["warnings"] == []
    assert run["latent_shape"] == [1, 16, 2, 8, 8]


def test_alpha_zero_gives_the_frames_of_a_graph_without_the_node(server):
    bare = small_graph()
    bypass(bare, "PreciseCacheLFCache")
    (cached, report), (frames, nothing) = queue(server, small_graph(preset="custom", alpha=0.0), bare)
    assert np.array_equal(cached, frames)
    assert report["runs"][0]["reused"] == 0 and nothing["runs"] == []


def test_a_graph_queued_again_changed_bypassed_and_changed_back(server):
    """One session of the server, as a user has it, with both nodes in the graph."""

    def flash(**lfcache):
        graph = load_flash()
        set_inputs(graph, "EmptyHunyuanLatentVideo", width=64, height=64, length=5)
        set_inputs(graph, "KSampler", steps=16)
        set_inputs(graph, "PreciseCacheLFCache", **lfcache)
        return graph

    bare, half = flash(), flash()
    bypass(bare, "PreciseCacheLFCache")
    for graph in (bare, half):
        bypass(graph, "PreciseCacheBlockCache")
    exact = flash(preset="custom", alpha=0.0)
    set_inputs(exact, "PreciseCacheBlockCache", cache_rate=0.0)
    results = queue(server, flash(), flash(), bare, exact, half, flash())
    (first, report), (same, kept), (without, nothing), (off, _), (steps_only, half_report), (last, again) = results

    def untimed(report):
        return [
            {
                key: value
                for key, value in run.items()
                if key not in ("seconds", "speedup", "saved_seconds", "run", "trial_share")
            }
            for run in report["runs"]
        ]

    assert np.array_equal(first, same) and untimed(kept) == untimed(report)
    assert np.array_equal(without, off) and not np.array_equal(without, first)
    assert nothing["runs"] == [] and half_report["runs"][0]["blockcache"] is None
    assert not np.array_equal(steps_only, first)
    assert np.array_equal(first, last) and untimed(again) == untimed(report)


def test_a_bad_setting_is_refused_with_its_name(server):
    with pytest.raises(ServerFailed, match="alpha"):
        queue(server, small_graph(preset="custom", alpha=-1.0))
    with pytest.raises(ServerFailed, match="start_percent must be below end_percent"):
        queue(server, small_graph(start_percent=0.9, end_percent=0.5))
    assert queue(server, small_graph())[0][1]["runs"][0]["calls"] == 12


def test_a_graph_may_leave_advanced_inputs_out(server):
    graph = small_graph(preset="turbo")
    inputs = graph[only_node(graph, "PreciseCacheLFCache")]["inputs"]
    for name in set(inputs) - {"model", "preset", "alpha", "share"}:
        del inputs[name]
    (frames, _), (same, _) = queue(server, graph, small_graph(preset="turbo"))
    assert np.array_equal(frames, same)


def test_flash_runs_and_reports_both_caches(server):
    graph = load_flash()
    set_inputs(graph, "EmptyHunyuanLatentVideo", width=64, height=64, length=5)
    set_inputs(graph, "KSampler", steps=20)
    (run,) = queue(server, graph)[0][1]["runs"]
    # turbo computes 8 of 20 steps; the plan is made from a trial for each step
    assert run["computed"] == run["plan"]["budget"] == 8
    assert run["reused"] == 12 and run["trials"] == 20 and run["warnings"] == []
    assert run["blockcache"]["blocks"] == 16 and run["blockcache"]["block_calls_skipped"] > 0
    assert run["cache_bytes"]["blockcache"] > run["cache_bytes"]["lfcache"] > 0


@pytest.mark.parametrize(
    "node, name, first, count",
    [
        ("PreciseCacheLFCache", "PreciseCache LFCache", ["model", "preset", "alpha", "share"], 15),
        (
            "PreciseCacheBlockCache",
            "PreciseCache BlockCache",
            ["model", "cache_rate", "reuse_steps", "start_percent"],
            6,
        ),
    ],
)
def test_every_input_of_a_node_has_a_tooltip_and_bounds(server, node, name, first, count):
    import json
    import urllib.request

    with urllib.request.urlopen(f"http://{server.address}/object_info/{node}") as answer:
        info = json.load(answer)[node]
    assert info["display_name"] == name and info["category"] == "PreciseCache"
    inputs = info["input"]["required"] | info["input"]["optional"]
    assert list(inputs)[:4] == first and len(inputs) == count
    for name, (kind, options) in inputs.items():
        assert options["tooltip"], name
        if kind in ("INT", "FLOAT"):
            assert {"default", "min", "max", "step"} <= set(options), name
