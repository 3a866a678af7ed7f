"""Changes that the caller asks for in a graph in API format."""

import json

from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.lfcache.config import PRESETS

LFCACHES = ("PreciseCacheLFCache", "PreciseCacheLFCacheRay")
BLOCKCACHES = ("PreciseCacheBlockCache", "PreciseCacheBlockCacheRay")


class OverrideError(ValueError):
    """A change that does not fit the graph; the message says what would."""


def parse(text):
    """`node.input=value` as (node, input, value); the value is parsed as JSON if it can be, else kept as text."""
    path, is_there, value = text.partition("=")
    node, dot, name = path.rpartition(".")
    if not (is_there and dot and node and name):
        raise OverrideError(f"expected NODE.INPUT=VALUE, got {text!r}")
    try:
        return node, name, json.loads(value)
    except ValueError:
        return node, name, value


def apply(graph, node, name, value):
    """Set an input of the nodes with this id, class or title. Raises OverrideError if there is none."""
    found = [
        item for key, item in graph.items() if node in (key, item["class_type"], item.get("_meta", {}).get("title"))
    ]
    if not found:
        raise OverrideError(f"the graph has no node {node!r}; it has {', '.join(names(graph))}")
    for item in found:
        if isinstance(item["inputs"].get(name), list):
            raise OverrideError(f"{name} of {node} comes from another node: change it there")
        if name not in item["inputs"]:
            raise OverrideError(f"{node} has no input {name!r}; it has {', '.join(item['inputs'])}")
        item["inputs"][name] = value


def names(graph):
    """How each node can be named: id, class and title."""
    titles = {key: node.get("_meta", {}).get("title", node["class_type"]) for key, node in graph.items()}
    return [
        f"{key} ({node['class_type']}{'' if titles[key] == node['class_type'] else f', {titles[key]!r}'})"
        for key, node in graph.items()
    ]


def set_seed(graph, seed):
    """Set the seed of every node that draws noise. Raises OverrideError if there is none."""
    found = [
        (node["inputs"], name)
        for node in graph.values()
        for name in ("seed", "noise_seed")
        if isinstance(node["inputs"].get(name), (int, float))
    ]
    if not found:
        raise OverrideError("the graph has no node with a seed")
    for inputs, name in found:
        inputs[name] = seed


def set_preset(graph, preset):
    """Set the preset of every PreciseCache LFCache that is not off, or of all if all are off; also those for Raylight.

    `flash` sets every BlockCache to its defaults too.
    """
    presets = ("off", *PRESETS)
    if preset not in presets:
        raise OverrideError(f"there is no preset {preset!r}; choose from {', '.join(presets)}")
    if preset == "flash":
        for kind in kinds_in(graph, BLOCKCACHES):
            for name in ("cache_rate", "reuse_steps"):
                apply(graph, kind, name, getattr(BlockCacheConfig(), name))
    used = caching(graph)
    for kind in kinds_in(used, LFCACHES) or LFCACHES[:1]:
        apply(used, kind, "preset", preset)


def kinds_in(graph, kinds):
    """Those of these classes of which the graph has nodes."""
    there = {node["class_type"] for node in graph.values()}
    return [kind for kind in kinds if kind in there]


def caching(graph):
    """The graph without the LFCache nodes that are off, which only time a run; the graph itself if all are off."""
    found = {key for key, node in graph.items() if node["class_type"] in LFCACHES}
    timing = {key for key in found if graph[key]["inputs"].get("preset") == "off"}
    return {key: node for key, node in graph.items() if key not in timing} if timing < found else graph


def check(graph):
    """Raise OverrideError unless this is a graph in API format."""
    is_graph = (
        isinstance(graph, dict)
        and graph
        and all(
            isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
            for node in graph.values()
        )
    )
    if not is_graph:
        hint = (
            " It is in the page's own format: open it in ComfyUI and choose File, Export (API)."
            if (isinstance(graph, dict) and "nodes" in graph)
            else ""
        )
        raise OverrideError(f"this is not a graph in ComfyUI's API format.{hint}")
