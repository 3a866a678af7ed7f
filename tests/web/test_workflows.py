"""The shipped workflows in the real page: each loads completely and converts to its API graph."""

import json

import pytest

from testkit.tiny_host import ROOT

FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

# faults of the open graph: unknown nodes, links to nothing, required inputs without a link
FAULTS = """
const known = LiteGraph.registered_node_types;
return app.graph.nodes.flatMap((node) => [
    ...(known[node.type] ? [] : [`${node.type} is missing`]),
    ...node.inputs.filter((input) => input.link != null && !app.graph.getLink(input.link))
        .map((input) => `${node.type}.${input.name} is linked to nothing`),
    ...node.inputs.filter((input) => input.link == null && !input.widget && !optional(node, input.name))
        .map((input) => `${node.type}.${input.name} is not linked`),
]);
function optional(node, name) { return !(name in (node.constructor.nodeData?.input?.required ?? {})); }
"""


def test_every_workflow_has_its_api_graph():
    assert len(NAMES) >= 6
    assert sorted(path.stem for path in (FOLDER / "api").glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_saves_without_change_and_converts_to_its_api_graph(page, name):
    shipped = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    expected = json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8"))
    page.call("app.loadGraphData(a[0])", shipped)
    assert page.js(FAULTS) == []
    assert len(page.js("return app.graph.nodes.map((n) => n.id)")) == len(shipped["nodes"])
    saved = page.call("app.graphToPrompt()")
    assert plain(saved["output"]) == plain(expected)
    page.call("app.loadGraphData(a[0])", saved["workflow"])
    again = page.call("app.graphToPrompt()")
    assert plain(again["output"]) == plain(expected)
    assert {n["id"]: (n["type"], n["pos"], n.get("widgets_values")) for n in again["workflow"]["nodes"]} == {
        n["id"]: (n["type"], n["pos"], n.get("widgets_values")) for n in shipped["nodes"]
    }
    page.js("app.canvas.ds.scale = 0.55; app.canvas.ds.offset = [120, 420]; app.graph.setDirtyCanvas(true, true)")
    page.picture(f"workflow_{name}")


def plain(graph):
    """An API graph without titles."""
    return {key: (node["class_type"], node["inputs"]) for key, node in graph.items()}


# {name: width} of the pictures in the template browser; the width is 0 while a picture loads
PICTURES_SHOWN = """Object.fromEntries([...document.querySelectorAll('[role=dialog] img')]
    .map((image) => [image.alt, image.naturalWidth]))"""


def click_text(page, text):
    """Click the innermost element of the dialog that has this text."""
    page.wait(
        """[...document.querySelectorAll('[role=dialog] *')]
        .filter((e) => !e.children.length && e.textContent.trim() === a[0])
        .map((e) => (e.click(), true)).pop()""",
        text,
    )


def test_the_templates_are_in_the_browser_with_their_pictures_and_open(page):
    page.js("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    click_text(page, ROOT.name)  # the folder's name is the group's
    page.wait(f"(shown => a[0].every((name) => shown[name] > 0))({PICTURES_SHOWN})", NAMES)
    assert sorted(page.js(f"return {PICTURES_SHOWN}")) == NAMES
    page.picture("templates")
    click_text(page, "precisecache_compare")
    page.wait("app.graph.nodes.some((node) => node.type === 'PreciseCacheCompare')")
    page.wait("!document.querySelector('[role=dialog]')")
