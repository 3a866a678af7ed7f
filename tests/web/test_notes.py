"""The titles and notes of the shipped graphs in the user's language."""

import json

from testkit.tiny_host import ROOT

NAME = "wan2.2_t2v_14B_precisecache"
SHIPPED = json.loads((ROOT / "workflows" / f"{NAME}.json").read_text("utf-8"))
API = json.loads((ROOT / "workflows" / "api" / f"{NAME}.json").read_text("utf-8"))
LOCALE = json.loads((ROOT / "locales" / "zh" / "main.json").read_text("utf-8"))["PreciseCacheGraphs"]

# {id of a node: [its title, its note]}
TEXTS = """return Object.fromEntries(app.graph.nodes.map((node) =>
    [node.id, [node.title, node.type === 'MarkdownNote' ? node.widgets[0].value : null]]))"""

# the graph with its prompts in a subgraph
NEST = """app.graph.convertToSubgraph(new Set(['Positive prompt', 'Negative prompt'].map((title) =>
    app.graph.nodes.find((node) => node.title === title))));
return JSON.parse(JSON.stringify(app.graph.serialize()))"""


def note_of(node):
    return node["widgets_values"][0] if node["type"] == "MarkdownNote" else None


def open_graph(page, graph):
    """Open a graph as the template browser does; returns {id: [title, note]}."""
    page.call("app.loadGraphData(a[0], true, true, a[1])", graph, NAME)
    return {int(node): texts for node, texts in page.js(TEXTS).items()}


def in_chinese(text):
    return "\n".join(LOCALE.get(line, line) for line in text.split("\n"))


def test_titles_and_notes_are_in_the_users_language_and_the_users_own_stay(page):
    titled = {node["id"]: node["title"] for node in SHIPPED["nodes"] if node.get("title")}
    notes = {node["id"]: note_of(node) for node in SHIPPED["nodes"] if note_of(node)}
    shown = open_graph(page, SHIPPED)
    assert {node: shown[node][0] for node in titled} == titled
    assert {node: shown[node][1] for node in notes} == notes
    nested = page.js(NEST)

    page.set_setting("Comfy.Locale", "zh")
    page.open()
    shown = open_graph(page, SHIPPED)
    assert {node: shown[node][0] for node in titled} == {node: in_chinese(title) for node, title in titled.items()}
    assert {node: shown[node][1] for node in notes} == {node: in_chinese(note) for node, note in notes.items()}
    page.js("app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [90, 480]; app.graph.setDirtyCanvas(true, true)")
    page.picture("notes_chinese")
    # nothing has changed since the page opened it, and the same will be computed
    page.js("app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()")
    assert page.js("return app.extensionManager.workflow.activeWorkflow.isModified") is False
    sent = page.call("app.graphToPrompt()")["output"]
    assert {key: (node["class_type"], node["inputs"]) for key, node in sent.items()} == {
        key: (node["class_type"], node["inputs"]) for key, node in API.items()
    }
    # groups, and nodes in subgraphs
    open_graph(page, nested)
    titles = [*(group["title"] for group in SHIPPED["groups"]), "Positive prompt", "Negative prompt"]
    assert page.js(
        """const {groups, nodes} = app.graph, inner = nodes.find((node) => node.subgraph).subgraph.nodes;
        return [...groups, ...inner].map(({title}) => title)"""
    ) == [in_chinese(title) for title in titles]

    # a note that the user has written on stays as it is; the other one is still ours
    mine = json.loads(json.dumps(SHIPPED))
    changed, kept = (next(node for node in mine["nodes"] if node["id"] == key) for key in notes)
    changed["widgets_values"][0] += "\nMy own line."
    changed["title"] = "My own title"
    shown = open_graph(page, mine)
    assert shown[changed["id"]] == ["My own title", note_of(changed)]
    assert shown[kept["id"]][1] == in_chinese(note_of(kept))
    # without a note of ours the graph is the user's
    kept["widgets_values"][0] = "My own note."
    shown = open_graph(page, mine)
    assert {node["id"]: shown[node["id"]][0] for node in mine["nodes"] if node.get("title")} == {
        node["id"]: node["title"] for node in mine["nodes"] if node.get("title")
    }
    # and so is one without our nodes
    theirs = {**SHIPPED, "nodes": [n for n in SHIPPED["nodes"] if n["type"] == "MarkdownNote"], "links": []}
    assert {key: note for key, (_, note) in open_graph(page, theirs).items()} == notes
