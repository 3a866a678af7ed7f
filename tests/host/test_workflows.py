"""The shipped API graphs in a real server: valid except for missing model files, and run with the tiny model.

Those for several GPUs are in tests/multigpu.
"""

import asyncio
import re

import pytest

from testkit.shipped_graphs import check_valid_except_for_model_files, promised, with_tiny_model
from testkit.tiny_host import OLDEST, ROOT, find_host
from tools.comfyui.client import ComfyClient
from tools.comfyui.locate import comfyui_version
from tools.comfyui.server import ComfyServer
from tools.graph.shipped import load_graph, needs_raylight, nodes_of
from tools.templates.__main__ import schemas_of, texts

ALL = sorted((ROOT / "workflows" / "api").glob("*.json"))
FILES = [path for path in ALL if not needs_raylight(load_graph(path))]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ComfyServer(find_host(), tmp_path_factory.mktemp("server") / "comfyui.log") as server:
        server.wait()
        yield server


def test_the_files_are_what_their_recipes_say(server):
    if tuple(map(int, re.findall(r"\d+", comfyui_version(find_host())))) < OLDEST:
        pytest.skip("the recipes are written for a newer ComfyUI")
    written = texts(schemas_of(server))
    assert sorted(path for path in written if path.parent.name == "api") == FILES
    for path, text in written.items():
        assert path.read_text("utf-8") == text, f"{path.name}: run python3 -m tools.templates"


def has_nodes(server, graph):
    """Whether the host has every node of a graph."""
    known = schemas_of(server)
    return {node["class_type"] for node in graph.values()} <= known.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_graph_is_valid_except_for_model_files(server, file):
    graph = load_graph(file)
    if not has_nodes(server, graph):
        pytest.skip("this ComfyUI is too old for the graph")
    check_valid_except_for_model_files(server, graph)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_graph_runs_to_the_end_with_the_tiny_model(server, file):
    graph = load_graph(file)
    if not has_nodes(server, graph):
        pytest.skip("this ComfyUI is too old for the graph")
    for kind in ("EmptyHunyuanVideo15Latent",):  # its channels are not the tiny model's
        for key in nodes_of(graph, kind):
            graph[key]["class_type"] = "EmptyHunyuanLatentVideo"

    async def run():
        async with ComfyClient(server) as client:
            return await client.run(with_tiny_model(graph))

    outputs, _ = asyncio.run(run())
    runs = {key: outputs[key]["precisecache"][0]["runs"] for key in nodes_of(graph, "PreciseCacheStats")}
    assert runs
    for key, (run,) in runs.items():
        assert run["calls"] >= run["steps"] >= 10 and run["warnings"] == [], key
        assert run["reused"] > 0 or run["label"] in ("uncached", "EasyCache 0.2"), key
    note = promised(file.stem)
    if note:  # of both experts together
        computed, steps = (sum(run[name] for (run,) in runs.values()) for name in ("computed", "steps"))
        assert note == f"{computed} of {steps}"
    for key in nodes_of(graph, "SaveVideo"):
        assert outputs[key]["images"][0]["filename"].endswith(".mp4")
