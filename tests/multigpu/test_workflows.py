"""The shipped graphs for several GPUs in a real ComfyUI server with Raylight.

They are what their recipes say, valid except for missing model files, and run with the tiny model.
"""

import asyncio

import pytest

from precisecache_core.tiny.bundle import MODEL_FILE
from testkit.raylight_server import RaylightServer
from testkit.shipped_graphs import check_valid_except_for_model_files, promised, with_tiny_model
from testkit.tiny_host import ROOT, find_host
from tools.comfyui.client import ComfyClient
from tools.graph.shipped import load_graph, needs_raylight, only_node, set_inputs
from tools.templates.__main__ import schemas_of, texts
from tools.templates.recipes import WITH_RAYLIGHT

FILES = [path for path in sorted((ROOT / "workflows" / "api").glob("*.json")) if needs_raylight(load_graph(path))]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "comfyui.log"
    with RaylightServer(find_host(), log, [MODEL_FILE], collective_seconds=60) as server:
        server.wait()
        yield server


def test_the_files_are_what_their_recipes_say(server):
    written = texts(schemas_of(server), WITH_RAYLIGHT)
    assert sorted(path for path in written if path.parent.name == "api") == FILES
    for path, text in written.items():
        assert path.read_text("utf-8") == text, f"{path.name}: run python3 -m tools.templates"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_graph_is_valid_except_for_model_files(server, file):
    check_valid_except_for_model_files(server, load_graph(file))


def run(server, graph):
    """The only run in the report of Cache Stats (Ray), and all outputs."""

    async def sample():
        async with ComfyClient(server) as client:
            return await client.run(with_tiny_model(graph))

    outputs, _ = asyncio.run(sample())
    (run,) = outputs[only_node(graph, "PreciseCacheStatsRay")]["precisecache"][0]["runs"]
    return run, outputs


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_graph_runs_to_the_end_with_the_tiny_model(server, file):
    graph = load_graph(file)
    sampled, outputs = run(server, graph)
    assert sampled["warnings"] == [] and sampled["reused"] > 0
    assert promised(file.stem) == f"{sampled['computed']} of {sampled['steps']}"
    assert outputs[only_node(graph, "SaveVideo")]["images"][0]["filename"].endswith(".mp4")


@pytest.mark.parametrize("cfg_degree", [1, 2])
def test_flash_skips_blocks_unless_the_guidance_is_divided(server, cfg_degree):
    """What the note of Wan2.1's graph says."""
    graph = load_graph(ROOT / "workflows" / "api" / "wan2.1_t2v_raylight_precisecache.json")
    set_inputs(graph, "RayInitializer", ulysses_degree=2 // cfg_degree, cfg_degree=cfg_degree)
    set_inputs(graph, "PreciseCacheLFCacheRay", preset="flash")
    flash, _ = run(server, graph)
    assert flash["computed"] == 9 and flash["steps"] == 30
    assert (flash["blockcache"]["block_calls_skipped"] > 0) == (cfg_degree == 1), flash["blockcache"]
