"""The shipped workflows in the real page: each opens tidily and converts to its API graph.

In both pages (the host's own and a newer one) and in both renderers. Pictures of all are in runs/web. Those for several
GPUs need a server with Raylight; without it the page names the missing nodes and shows the notes.
"""

import contextlib
import json
import shutil

import pytest
from conftest import Page, newer_page

from testkit.raylight_on_cpu import why_missing
from testkit.raylight_server import RaylightServer
from testkit.tiny_host import ROOT, find_host
from tools.graph.shipped import load_graph, needs_raylight

FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
WITH_RAYLIGHT = [name for name in NAMES if needs_raylight(load_graph(FOLDER / "api" / f"{name}.json"))]
RAYLIGHT = ["RayInitializer", "RayModelSamplingSD3", "RayUNETLoader", "XFuserKSamplerAdvanced"]  # nodes of its own
WINDOW = (1600, 1000)

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

# pairs of nodes that overlap, and nodes that leave their column's frame; as drawn, in the graph's pixels
OVERLAPS = """
const {scale, offset} = app.canvas.ds;
const corner = app.canvas.canvas.getBoundingClientRect();
const boxOf = (node) => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    if (!element) return [...node.boundingRect];
    const boxes = [element, ...element.querySelectorAll('button')].map((e) => e.getBoundingClientRect())
        .filter((box) => box.width > 0);
    const [left, top] = ['left', 'top'].map((side) => Math.min(...boxes.map((box) => box[side])));
    const [right, bottom] = ['right', 'bottom'].map((side) => Math.max(...boxes.map((box) => box[side])));
    return [(left - corner.left) / scale - offset[0], (top - corner.top) / scale - offset[1],
        (right - left) / scale, (bottom - top) / scale];
};
const nodes = app.graph.nodes.map((node) => ({name: `${node.id} ${node.title}`, box: boxOf(node)}));
const overlap = ([x, y, w, h], [x2, y2, w2, h2]) =>
    Math.min(x + w, x2 + w2) - Math.max(x, x2) > 1 && Math.min(y + h, y2 + h2) - Math.max(y, y2) > 1;
const inside = ([x, y, w, h], [x2, y2, w2, h2]) =>
    x >= x2 - 1 && y >= y2 - 1 && x + w <= x2 + w2 + 1 && y + h <= y2 + h2 + 1;
const frames = app.graph.groups.map((group) => [...group.boundingRect ?? group._bounding]);
return nodes.flatMap((a, i) => [
    ...nodes.slice(i + 1).filter((b) => overlap(a.box, b.box)).map((b) => `${a.name} over ${b.name}`),
    ...frames.filter((frame) => overlap(a.box, frame) && !inside(a.box, frame)).map(() => `${a.name} leaves its frame`),
]);
"""

# the zoom, and the least one at which the page writes the nodes' texts
ZOOM = """
const least = app.canvas._lowQualityZoomThreshold ?? app.canvas.lowQualityZoomThreshold ?? 8 / 14;
return [app.canvas.ds.scale, Math.max(least, 8 / 14)];
"""


def test_every_workflow_has_its_api_graph():
    assert len(NAMES) >= 18 and len(WITH_RAYLIGHT) == 2
    assert sorted(path.stem for path in (FOLDER / "api").glob("*.json")) == NAMES


@pytest.fixture(scope="module", params=["own", "newer"])
def opened(request, browser):
    """The page in both versions, opened once for all templates."""
    server = request.getfixturevalue("server" if request.param == "own" else "newer_server")
    inputs = server.folder.name + "/input"
    shutil.copy(find_host() / "input" / "example.png", inputs)  # as in every ComfyUI
    with in_window(Page(server, browser)) as page:
        page.version = request.param
        yield page


@contextlib.contextmanager
def in_window(page):
    """The page in a window of the size that the graphs are laid out for."""
    size = page.browser.get_window_size()
    page.browser.set_window_size(*WINDOW)
    yield page
    page.browser.set_window_size(size["width"], size["height"])


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def rendered(request, opened):
    """The page in both renderers. It checks every graph that it opens against the page's own schema."""
    with in_renderer(opened, request.param):
        yield opened


@contextlib.contextmanager
def in_renderer(page, is_vue):
    page.prepare(is_vue=is_vue)
    page.set_setting("Comfy.Validation.Workflows", True)
    page.open()
    page.all_errors()
    page.is_vue = is_vue
    yield
    page.set_setting("Comfy.Validation.Workflows", False)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_RAYLIGHT])
def test_it_opens_tidily_saves_without_change_and_converts_to_its_api_graph(rendered, name):
    """Every graph in two of the four combinations, every second one in all, because each takes seconds."""
    if rendered.is_vue == (rendered.version == "own") and NAMES.index(name) % 2:
        pytest.skip("opened in the same page and in the same renderer already, not in both at once")
    check_opened(rendered, name)


@pytest.fixture(scope="module", params=["own", "newer"])
def opened_with_raylight(request, browser, tmp_path_factory):
    """As `opened`, on a server with Raylight."""
    if missing := why_missing():
        pytest.skip(missing)
    page = ["--front-end-root", newer_page()] if request.param == "newer" else []
    log = tmp_path_factory.mktemp("server") / "raylight.log"
    with RaylightServer(find_host(), log, arguments=page) as server:
        server.wait()
        with in_window(Page(server, browser)) as page:
            page.version = request.param
            yield page


@pytest.mark.parametrize("is_vue", [False, True], ids=["canvas", "vue"])
def test_those_for_several_gpus_do_so_too(opened_with_raylight, is_vue):
    with in_renderer(opened_with_raylight, is_vue):
        for name in WITH_RAYLIGHT:
            check_opened(opened_with_raylight, name)


@pytest.mark.parametrize("name", WITH_RAYLIGHT)
def test_without_raylight_the_page_names_the_missing_nodes_and_shows_the_note(page, name):
    shipped = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    page.call("app.loadGraphData(a[0], true, true, null, {openSource: 'template'}).then(() => true)", shipped)
    kinds = "return app.graph.nodes.map((node) => node.type).filter((k) => !LiteGraph.registered_node_types[k])"
    assert sorted(page.js(kinds)) == RAYLIGHT
    view = "[...document.querySelectorAll('button')].filter((b) => b.textContent.trim() === 'View details')"
    page.wait(f"{view}.map((b) => (b.click(), true)).pop()")
    page.wait("a[0].every((kind) => document.body.innerText.includes(kind))", RAYLIGHT)
    notes = page.js("return app.graph.nodes.filter((n) => n.type === 'MarkdownNote').map((n) => n.widgets[0].value)")
    assert "**Needs Raylight**" in notes[0] and "https://github.com/komikndr/raylight" in notes[0]
    page.picture(f"workflow_{name}_without_raylight")


def check_opened(page, name):
    """Open a template and check all that the title of this file says."""
    shipped = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    expected = json.loads((FOLDER / "api" / f"{name}.json").read_text("utf-8"))
    page.call("app.loadGraphData(a[0], true, true, null, {openSource: 'template'}).then(() => true)", shipped)
    if page.is_vue:
        page.wait("document.querySelectorAll('[data-node-id]').length >= a[0]", len(shipped["nodes"]))
    assert page.js(FAULTS) == []
    assert len(page.js("return app.graph.nodes.map((n) => n.id)")) == len(shipped["nodes"])
    page.picture(f"workflow_{name}_{page.version}_{'vue' if page.is_vue else 'canvas'}")
    assert page.js(OVERLAPS) == []
    zoom, least = page.js(ZOOM)
    assert zoom >= least
    saved = page.call("app.graphToPrompt()")
    assert plain(saved["output"]) == plain(expected)
    assert {n["id"]: (n["type"], n["pos"], n.get("widgets_values") or []) for n in saved["workflow"]["nodes"]} == {
        n["id"]: (n["type"], n["pos"], n.get("widgets_values")) for n in shipped["nodes"]
    }
    # the page asks the files' own server how large the missing models are
    assert [error for error in page.all_errors() if "huggingface.co" not in error] == []
    assert page.js("return [...document.querySelectorAll('.p-toast-message')].map((e) => e.textContent)") == []


def plain(graph):
    """An API graph without titles."""
    return {key: (node["class_type"], node["inputs"]) for key, node in graph.items()}


# the names of the pictures that the template browser has loaded; it loads those that are scrolled into sight
SCROLL = """const images = [...document.querySelectorAll('[role=dialog] img')];
window.seen ??= new Set();
for (const image of images) if (image.naturalWidth) window.seen.add(image.alt);
(images.find((image) => !image.naturalWidth) ?? images.at(-1))?.scrollIntoView();
return [...window.seen].sort();"""


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
    page.until(lambda: page.js(SCROLL) == NAMES, f"not all pictures were shown, only {page.js(SCROLL)}")
    page.picture("templates")
    click_text(page, "precisecache_compare")
    page.wait("app.graph.nodes.some((node) => node.type === 'PreciseCacheCompare')")
    page.wait("!document.querySelector('[role=dialog]')")
