"""Which nodes of a graph a ComfyUI does not have, and what to install for them."""

import re

# how the classes of a pack's nodes begin: the pack and what it needs
PACKS = {
    r"Ray[A-Z]|XFuser": "Raylight (https://github.com/komikndr/raylight), for several GPUs in one Linux machine",
}


def missing_nodes(graph, known):
    """A line that names every class of the graph that is not among the known ones; nothing if all are known."""
    missing = sorted({node.get("class_type", "(none)") for node in graph.values()} - set(known))
    if not missing:
        return ""
    packs = [pack for start, pack in PACKS.items() if any(re.match(start, kind) for kind in missing)]
    install = " and ".join(packs) or "the custom nodes that have them"
    return f"\nThis ComfyUI has no {', '.join(missing)}: install {install}, and restart ComfyUI."
