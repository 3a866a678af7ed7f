"""The shipped graph of the tiny model, in ComfyUI's API format, and what the demo changes in it."""

import json
from pathlib import Path

from tools.graph.overrides import set_preset

GRAPHS = Path(__file__).resolve().parents[2] / "workflows" / "api"
DEMO = GRAPHS / "precisecache_tiny_demo.json"


def load_graph(path=DEMO):
    """A shipped graph, unchanged."""
    return json.loads(path.read_text("utf-8"))


def needs_raylight(graph):
    """Whether a graph has nodes of the pack Raylight, which a ComfyUI need not have."""
    return bool(nodes_of(graph, "RayInitializer"))


def load_step_cache():
    """The demo's graph with LFCache alone; saves lossless frames instead of a video file."""
    graph = load_graph()
    bypass(graph, "PreciseCacheBlockCache")
    save_frames(graph)
    return graph


def load_flash():
    """The demo's graph with both nodes, set to what the preset flash does; saves lossless frames."""
    graph = load_graph()
    set_preset(graph, "flash")
    set_inputs(graph, "PreciseCacheLFCache", preset="turbo")
    save_frames(graph)
    return graph


def save_frames(graph):
    """Replace the video file with a lossless animated WebP, and remove the plot."""
    video = graph.pop(only_node(graph, "CreateVideo"))["inputs"]
    del graph[only_node(graph, "PreviewImage")]
    graph[only_node(graph, "SaveVideo")] = {
        "class_type": "SaveAnimatedWEBP",
        "inputs": {
            "images": video["images"],
            "filename_prefix": "precisecache",
            "fps": float(video["fps"]),
            "lossless": True,
            "quality": 80,
            "method": "default",
        },
        "_meta": {"title": "Save Animated WEBP"},
    }


def nodes_of(graph, class_type):
    """Ids of the nodes of a class."""
    return [key for key, node in graph.items() if node["class_type"] == class_type]


def only_node(graph, class_type):
    """Id of the one node of a class. Raises RuntimeError if there is none or more than one."""
    keys = nodes_of(graph, class_type)
    if len(keys) != 1:
        raise RuntimeError(f"the graph has {len(keys)} nodes of class {class_type}; the demo needs exactly one")
    return keys[0]


def set_inputs(graph, class_type, **inputs):
    """Set inputs of the one node of a class. Raises RuntimeError for inputs that it does not have."""
    node = graph[only_node(graph, class_type)]
    unknown = set(inputs) - set(node["inputs"])
    if unknown:
        raise RuntimeError(f"the graph's {class_type} has no input {', '.join(sorted(unknown))}")
    node["inputs"].update(inputs)


def bypass(graph, class_type):
    """Remove the nodes of a class as the page's Bypass does: the model they were given goes on to the next node."""
    for key in nodes_of(graph, class_type):
        source = graph.pop(key)["inputs"]["model"]
        for node in graph.values():
            for name, value in node["inputs"].items():
                if value == [key, 0]:
                    node["inputs"][name] = source
