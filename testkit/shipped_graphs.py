"""What the tests of the shipped graphs share: whether one is valid, and the tiny model in place of the large one."""

import json
import re
import urllib.error
import urllib.request

from precisecache_core.tiny.bundle import MODEL_FILE
from testkit.tiny_host import ROOT
from tools.graph.shipped import nodes_of

# inputs of the loaders and of LoadImage that name files which this machine lacks
MODEL_FILES = {"unet_name", "clip_name", "clip_name1", "clip_name2", "vae_name", "image"}
TINY = {"UNETLoader": 0, "VAELoader": 3}  # loader: the output of the tiny model that replaces it


def check_valid_except_for_model_files(server, graph):
    """Let a server validate the graph; raises AssertionError unless it only misses the model files."""
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
    """The graph with the tiny model, its conditioning and its VAE in place of loaders and text encoders.

    Raylight's loader stays: its workers load the file of the tiny model.
    """
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
    for key in nodes_of(small, "RayUNETLoader"):
        small[key]["inputs"]["unet_name"] = MODEL_FILE.name
    for key in nodes_of(small, "RayInitializer"):
        small[key]["inputs"]["skip_comm_test"] = True  # it tests NCCL, which needs GPUs
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
