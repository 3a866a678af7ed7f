"""The shipped API graphs in a real server: valid except for missing model files, and run with the tiny model."""

import asyncio
import json
import re
import urllib.error
import urllib.request

import pytest

from testkit.tiny_host import OLDEST, ROOT, find_host
from tools.comfyui.client import ComfyClient
from tools.comfyui.locate import comfyui_version
from tools.comfyui.server import ComfyServer
from tools.graph.shipped import load_graph, nodes_of
from tools.templates.__main__ import schemas_of, texts

FILES = sorted((ROOT / "workflows" / "api").glob("*.json"))
# inputs of the loaders and of LoadImage that name files which this machine lacks
MODEL_FILES = {"unet_name", "clip_name", "clip_name1", "clip_name2", "vae_name", "image"}
TINY = {"UNETLoader": 0, "VAELoader": 3}  # loader: the output of the tiny model that replaces it


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
    names = {
        node["inputs"][name]
        for node in graph.values()
        for name in MODEL_FILES & node["inputs"].keys()
        if isinstance(node["inputs"][name], str)
    }
    request = urllib.request.Request(
        f"http://{server.address}/prompt", json.dumps({"prompt": graph}).encode(), {"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(request).close()
        assert not names
        stop_everything(server)  # the graph began to run, at its full size
        return
    except urllib.error.HTTPError as refused:
        answer = json.load(refused)
    assert names and answer["node_errors"]
    for node in answer["node_errors"].values():
        for error in node["errors"]:
            assert error["type"] in ("value_not_in_list", "custom_validation_failed"), error
            assert error["extra_info"]["input_name"] in MODEL_FILES, error


def stop_everything(server):
    for path, body in (("/queue", {"clear": True}), ("/interrupt", {})):
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://{server.address}{path}", data, {"Content-Type": "application/json"})
        urllib.request.urlopen(request).close()


def with_tiny_model(graph):
    """The graph with the tiny model, its conditioning and its VAE in place of loaders and text encoders."""
    tiny = "1000"
    outputs = {}
    for kind, output in TINY.items():
        outputs |= {(key, 0): [tiny, output] for key in nodes_of(graph, kind)}
    positives = {
        value[0]
        for node in graph.values()
        for name, value in node["inputs"].items()
        if name in ("positive", "conditioning") and isinstance(value, list)
    }
    for kind in ("CLIPTextEncode", "TextEncodeHunyuanVideo_ImageToVideo"):
        for key in nodes_of(graph, kind):
            outputs[key, 0] = [tiny, 1 if key in positives else 2]
    replaced = {key for key, _ in outputs} | set(nodes_of(graph, "CLIPLoader") + nodes_of(graph, "DualCLIPLoader"))
    small = {}
    for key, node in graph.items():
        if key not in replaced:
            inputs = {
                name: outputs.get(tuple(value), value) if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            inputs |= {name: size for name, size in dict(width=64, height=64, length=5).items() if name in inputs}
            small[key] = {**node, "inputs": inputs}
    small[tiny] = {
        "class_type": "PreciseCacheTinyModel",
        "inputs": {"subject": "triangle", "color": "orange", "motion": "right"},
    }
    # Wan2.1's image encoder has no small replacement; the graphs run without its optional output
    for kind in ("CLIPVisionEncode", "CLIPVisionLoader", "LoadImage"):
        for key in nodes_of(small, kind):
            del small[key]
    for node in small.values():
        node["inputs"] = {
            name: value for name, value in node["inputs"].items() if not isinstance(value, list) or value[0] in small
        }
    return small


def promised(name):
    """What the note of a template says that base computes, "10 of 20"; None if it says nothing."""
    text = (ROOT / "workflows" / f"{name}.json").read_text("utf-8")
    found = re.search(r"\*base\* computes (\d+ of \d+) steps, so", text)
    return found and found[1]


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
