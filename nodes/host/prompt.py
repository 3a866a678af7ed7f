"""The prompt being executed: which node runs, and which nodes feed it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

CACHE_NODES = ("PreciseCacheLFCache", "PreciseCacheBlockCache")
STATS_NODE = "PreciseCacheStats"


class Prompt:
    """The executing prompt and node; empty outside a server (tests, other programs).

    id, node_id: ids of the prompt and of the node being executed, or "".
    list_index: the item of a list that the node is executed for; 0 without a list.
    nodes: {node id: {"class_type": …, "inputs": …}}, with subgraphs flattened and with the nodes that other
        nodes have added.
    displayed_as: {id of an added node: id of the node that the page shows for it}.
    """

    def __init__(
        self,
        prompt_id: str = "",
        node_id: str = "",
        nodes: Mapping[str, dict] | None = None,
        list_index: int = 0,
        displayed_as: Mapping[str, str] | None = None,
    ) -> None:
        self.id = prompt_id
        self.node_id = node_id
        self.list_index = list_index
        self.nodes = nodes or {}
        self.displayed_as = displayed_as or {}
        self._fingerprints: dict[str, str] = {}

    @classmethod
    def current(cls) -> "Prompt":
        """The prompt and node that ComfyUI is executing now."""
        context = get_executing_context()
        if context is None:
            return cls()
        registry = get_progress_state()
        if registry.prompt_id != context.prompt_id:
            return cls(context.prompt_id, context.node_id, list_index=context.list_index or 0)
        graph = registry.dynprompt
        names = sorted(graph.all_node_ids())
        return cls(
            context.prompt_id,
            context.node_id,
            {name: graph.get_node(name) for name in names},
            context.list_index or 0,
            {name: graph.get_display_node_id(name) for name in names},
        )

    @property
    def is_known(self) -> bool:
        """Whether the graph of the node being executed is known."""
        return self.node_id in self.nodes

    def in_page(self, names: Iterable[str]) -> list[str]:
        """The ids of these nodes in the page, without duplicates."""
        return list(dict.fromkeys(self.displayed_as.get(name, name) for name in names))

    def links(self, node_id: str) -> list[str]:
        """Ids of the nodes connected to a node's inputs."""
        inputs = self.nodes.get(node_id, {}).get("inputs", {})
        return [value[0] for value in inputs.values() if is_link(value)]

    def upstream(self, node_id: str, is_end: Callable[[dict], bool] = lambda node: False) -> list[str]:
        """Ids of a node and of all nodes upstream of it, nearest first; stops at nodes where `is_end(node)`."""
        found: dict[str, bool] = {}
        waiting = [node_id]
        while waiting:
            name = waiting.pop(0)
            if name in found or name not in self.nodes:
                continue
            found[name] = True
            if not is_end(self.nodes[name]):
                waiting += self.links(name)
        return list(found)

    def fingerprint(self, node_id: str) -> str:
        """Digest of a node's class and inputs and of all nodes upstream of it; "" for an unknown node.

        If it is equal to an earlier one, ComfyUI may take the result from its own cache.
        """
        if node_id not in self.nodes:
            return ""
        if node_id not in self._fingerprints:
            node = self.nodes[node_id]
            inputs = sorted(
                (name, [self.fingerprint(value[0]), value[1]] if is_link(value) else value)
                for name, value in node.get("inputs", {}).items()
            )
            # an input that JSON cannot hold (added nodes may have any) equals only itself
            text = json.dumps([node.get("class_type"), inputs], default=lambda value: f"{type(value)} {id(value)}")
            self._fingerprints[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprints[node_id]

    def stats_of(self, cache_node: str) -> list[str]:
        """Ids of the Cache Stats nodes whose model comes from this LFCache or BlockCache node."""
        return [
            name
            for name, node in self.nodes.items()
            if node.get("class_type") == STATS_NODE
            and is_link(link := node.get("inputs", {}).get("model"))
            and cache_node in self.upstream(link[0], lambda n: n.get("class_type") in CACHE_NODES)
        ]


def is_link(value: Any) -> TypeGuard[list]:
    """Whether an input is another node's output: [node id, output number]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
