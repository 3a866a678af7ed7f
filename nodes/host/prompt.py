"""The prompt that is being executed: which node runs, and what its results were made from."""

import hashlib
import json

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

CACHE_NODES = ("PreciseCacheLFCache", "PreciseCacheBlockCache")
STATS_NODE = "PreciseCacheStats"


class Prompt:
    """The executing prompt and node; empty outside a server (tests, other programs).

    id, node_id: of the prompt and of the node being executed, or "".
    nodes: {node id: {"class_type": …, "inputs": …}}, subgraphs flattened, with what nodes have added.
    """

    def __init__(self, prompt_id="", node_id="", nodes=None):
        self.id = prompt_id
        self.node_id = node_id
        self.nodes = nodes or {}
        self._fingerprints = {}

    @classmethod
    def current(cls):
        context = get_executing_context()
        if context is None:
            return cls()
        registry = get_progress_state()
        graph = registry.dynprompt
        is_this = registry.prompt_id == context.prompt_id
        return cls(context.prompt_id, context.node_id,
                   {name: graph.get_node(name) for name in sorted(graph.all_node_ids())} if is_this else None)

    def links(self, node_id):
        """Ids of the nodes that feed a node."""
        inputs = self.nodes.get(node_id, {}).get("inputs", {})
        return [value[0] for value in inputs.values() if is_link(value)]

    def upstream(self, node_id, is_end=lambda node: False):
        """Ids of a node and of all that feed it, nearest first; goes no farther than where `is_end(node)`."""
        found, waiting = {}, [node_id]
        while waiting:
            name = waiting.pop(0)
            if name in found or name not in self.nodes:
                continue
            found[name] = True
            if not is_end(self.nodes[name]):
                waiting += self.links(name)
        return list(found)

    def fingerprint(self, node_id):
        """Digest of a node's class and inputs and of everything that feeds it; "" for an unknown node.

        Equal where ComfyUI answers from its own cache instead of running the node again.
        """
        if node_id not in self.nodes:
            return ""
        if node_id not in self._fingerprints:
            node = self.nodes[node_id]
            inputs = sorted((name, [self.fingerprint(value[0]), value[1]] if is_link(value) else value)
                            for name, value in node.get("inputs", {}).items())
            text = json.dumps([node.get("class_type"), inputs], default=str)
            self._fingerprints[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprints[node_id]

    def stats_of(self, cache_node):
        """Ids of the Cache Stats nodes whose model comes from this LFCache or BlockCache node."""
        return [name for name, node in self.nodes.items() if node.get("class_type") == STATS_NODE
                and is_link(link := node.get("inputs", {}).get("model"))
                and cache_node in self.upstream(link[0], lambda n: n.get("class_type") in CACHE_NODES)]


def is_link(value):
    """Whether an input is another node's output: [node id, output number]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
