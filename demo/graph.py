"""Graphs in ComfyUI's API format: what the demo changes in the shipped ones."""

import json
from pathlib import Path

GRAPHS = Path(__file__).resolve().parents[1] / "workflows" / "api"
DEMO = GRAPHS / "precisecache_tiny_demo.json"
FLASH = GRAPHS / "precisecache_tiny_flash.json"


def load_graph(path=DEMO):
    return json.loads(path.read_text("utf-8"))


def nodes_of(graph, class_type):
    """Ids of the nodes of a class."""
    return [key for key, node in graph.items() if node["class_type"] == class_type]


def only_node(graph, class_type):
    """Id of the one node of a class. Raises RuntimeError if there is none or more than one."""
    keys = nodes_of(graph, class_type)
    if len(keys) != 1:
        raise RuntimeError(f"the graph has {len(keys)} nodes of class {class_type}, the demo needs one")
    return keys[0]


def set_inputs(graph, class_type, **inputs):
    """Set inputs of the one node of a class; only inputs that it already has."""
    node = graph[only_node(graph, class_type)]
    unknown = set(inputs) - set(node["inputs"])
    if unknown:
        raise RuntimeError(f"the graph's {class_type} has no input {', '.join(sorted(unknown))}")
    node["inputs"].update(inputs)


def bypass(graph, class_type):
    """Take the nodes of a class out, as the page's Bypass does: their model passes through."""
    for key in nodes_of(graph, class_type):
        source = graph.pop(key)["inputs"]["model"]
        for node in graph.values():
            for name, value in node["inputs"].items():
                if value == [key, 0]:
                    node["inputs"][name] = source
