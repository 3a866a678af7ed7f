"""A graph in the format that ComfyUI's API takes."""

from tools.templates.form.slots import slots_of


def in_api_format(graph, schemas):
    """The graph as `POST /prompt` takes it. schemas: the answer of the server's /object_info."""
    return {
        node.key: {
            "class_type": node.kind,
            "inputs": {
                slot.name: [slot.link.key, slot.link.index] if slot.link else slot.value
                for slot in sorted(slots_of(node, schemas[node.kind]), key=lambda slot: slot.name)
                if slot.link or slot.is_widget
            },
            "_meta": {"title": node.title or schemas[node.kind]["display_name"] or node.kind},
        }
        for node in graph.nodes
    }
