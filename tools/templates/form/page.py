"""A graph in the format that the page opens: nodes with slots and widgets, links, frames and notes."""

import uuid

from tools.templates.form.layout import SIZES, VIEW, place
from tools.templates.form.slots import slots_of

COLOR = "#3f789e"
OPTIONAL = 7  # the shape of an optional input's slot


def in_page_format(graph, schemas):
    """The graph as the page saves it. schemas: the answer of the server's /object_info."""
    layout = place(graph)
    links, nodes = [], []
    for node in graph.nodes:
        nodes.append(_node(node, schemas[node.kind], layout.nodes[node.key], links))
    by_key = {node["id"]: node for node in nodes}
    for link in links:
        output = by_key[link[1]]["outputs"][link[2]]
        output["links"] = [*(output["links"] or []), link[0]]
        link[5] = output["type"]
    titles = ("About this graph", "PreciseCache")
    for title, text, box in zip(titles, (graph.about, graph.usage), layout.notes):
        nodes.append(_note(len(nodes) + 1, title, "\n\n".join(text), box))
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"precisecache/{graph.name}")),
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [
            {
                "id": number,
                "title": title,
                "bounding": [box.x, box.y, box.width, box.height],
                "color": COLOR,
                "font_size": 24,
                "flags": {},
            }
            for number, ((title, *_), box) in enumerate(zip(graph.columns, layout.frames), start=1)
        ],
        "config": {},
        "extra": {"ds": _view(layout)},
        "version": 0.4,
    }


def _node(node, schema, box, links):
    """A node's entry; its links are added to `links`."""
    inputs, values = [], []
    for slot in slots_of(node, schema):
        if slot.link or not slot.is_widget:
            inputs.append({"name": slot.name, "type": slot.type, "link": None})
            if slot.is_optional:
                inputs[-1]["shape"] = OPTIONAL
            if slot.is_widget:
                inputs[-1]["widget"] = {"name": slot.name}
        if slot.link:
            inputs[-1]["link"] = len(links) + 1
            links.append([len(links) + 1, int(slot.link.key), slot.link.index, int(node.key), len(inputs) - 1, None])
        if slot.is_widget:
            values += [slot.value, *slot.added]
    outputs = [
        {"name": name, "type": kind, "links": None, "slot_index": index}
        for index, (name, kind) in enumerate(zip(schema["output_name"], schema["output"]))
    ]
    properties = {"Node name for S&R": node.kind}
    if node.files:
        properties["models"] = node.files
    entry = {
        "id": int(node.key),
        "type": node.kind,
        "pos": [box.x, box.y],
        "size": [box.width, box.height or SIZES[node.kind][1]],
        "flags": {"collapsed": True} if node.is_collapsed else {},
        "order": int(node.key) - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        "properties": properties,
        "widgets_values": values,
    }
    return {**entry, "title": node.title} if node.title else entry


def _note(number, title, text, box):
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [box.x, box.y],
        "size": [box.width, box.height],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": title,
        "properties": {},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }


def _view(layout):
    """Scale and offset that show the whole graph, in the middle of the view."""
    bounds, scale = layout.bounds(), layout.scale()
    return {
        "scale": round(scale, 3),
        "offset": [
            round(view / scale / 2 - start - size / 2)
            for view, start, size in zip(VIEW, (bounds.x, bounds.y), (bounds.width, bounds.height))
        ],
    }
