"""How Cache Stats looks and what its buttons do: sizes, subgraphs, themes, languages, copies of the report."""

import json
from pathlib import Path

import pytest
from conftest import Page
from panel_texts import LFCACHE, STATS, badge, graph_of, shown, texts, time_text

LOCALES = Path(__file__).resolve().parents[2] / "locales"


def test_resized_collapsed_and_in_a_subgraph_it_still_works(page):
    page.load(graph_of(seed=5))
    page.js(
        """const node = app.graph.getNodeById(arguments[0]);
        node.setSize([600, 500]); node.collapse(); node.collapse();""",
        STATS,
    )
    prompt = page.queue()
    page.history(prompt)
    page.wait("app.graph.getNodeById(a[0]).widgets[0].element.querySelector('.seconds')", STATS)
    width, height = page.wait(
        "(r => r.width > 300 && [r.width, r.height])("
        "app.graph.getNodeById(a[0]).widgets[0].element.getBoundingClientRect())",
        STATS,
    )
    assert width > 400 and height > 250
    page.picture("resized")
    page.js("app.graph.getNodeById(arguments[0]).collapse()", STATS)
    page.wait("!app.graph.getNodeById(a[0]).widgets[0].element.checkVisibility()", STATS)
    page.picture("collapsed")

    inner = page.js("""const nodes = ['PreciseCacheStats', 'KSampler'].map(
            (type) => app.graph.nodes.find((n) => n.type == type));
        nodes[0].collapse();
        const {node} = app.graph.convertToSubgraph(new Set(nodes));
        return `${node.id}:${node.subgraph.nodes.find((n) => n.type == 'PreciseCacheStats').id}`;""")
    page.js(
        "app.graph.getNodeById(arguments[0].split(':')[0]).subgraph.nodes.find((n) => n.type == 'KSampler')"
        ".widgets[0].value = 55",
        inner,
    )
    prompt = page.queue()
    report = page.report(prompt, inner)
    page.js("app.canvas.openSubgraph(app.graph.getNodeById(arguments[0].split(':')[0]).subgraph)", inner)
    page.until(lambda: any(run["seconds"] for run in page.panel(inner)), "the run never ended")
    assert shown(page.panel(inner)) == [texts(run) for run in report["runs"]]
    page.picture("subgraph")


@pytest.fixture(params=["own", "newer"])
def page_of_both(request, browser):
    """The page in the host's version and in a newer one, not opened yet."""
    page = Page(request.getfixturevalue("server" if request.param == "own" else "newer_server"), browser)
    page.version = request.param
    yield page
    page.interrupt()
    assert page.errors() == []


@pytest.mark.parametrize("palette", ["dark", "light"])
@pytest.mark.parametrize("is_vue", [False, True], ids=["canvas", "vue"])
def test_it_is_readable_in_every_theme_and_renderer(page_of_both, palette, is_vue):
    page = page_of_both
    page.prepare(is_vue=is_vue, palette=palette)
    page.open()
    page.load(graph_of(seed=60 + 2 * is_vue + (palette == "light")))  # a new seed, so that it runs
    report = page.report(page.queue(), STATS)
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    page.wait("document.querySelector('.precisecache-panel').getBoundingClientRect().width > 200")
    assert shown(page.panel(STATS)) == [texts(run) for run in report["runs"]]
    text, ground = page.js("""const style = getComputedStyle(document.querySelector('.precisecache-panel'));
        return [style.color, style.backgroundColor]""")
    assert contrast(text, ground) > 4.5, (text, ground)
    (run,) = report["runs"]
    if is_vue:
        seen = page.js("return [...document.querySelectorAll('.precisecache-badge')].map((e) => e.textContent)")
        assert seen[0] == badge(run)
    page.picture(f"{palette}_{'vue' if is_vue else 'canvas'}_{page.version}")


def contrast(*colors):
    """WCAG contrast of two CSS colours `rgb(…)`."""

    def luminance(color):
        values = [float(v) / 255 for v in color[color.index("(") + 1 : -1].replace(" ", "").split(",")[:3]]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(map(luminance, colors))
    return (light + 0.05) / (dark + 0.05)


def test_the_report_can_be_copied_and_saved(page):
    page.load(graph_of(seed=7))
    report = page.report(page.queue(), STATS)
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    page.browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    page.js("document.querySelectorAll('.precisecache-button')[0].click()")
    page.wait("document.querySelector('.precisecache-button').textContent == 'Copied'")
    assert json.loads(page.call("navigator.clipboard.readText()")) == report
    page.js("document.querySelectorAll('.precisecache-button')[1].click()")
    file = page.browser.downloads / "precisecache_report.json"
    page.until(file.exists, "the report was never saved")  # the file has another name until it is complete
    assert json.loads(file.read_text("utf-8")) == report
    assert report["version"] == 2


# the plan and the buttons where they take more than one line each, and what is wider than the panel
TOO_LONG = """return [
    ...['plan', 'bar'].filter((name) => document.querySelector(`.precisecache-${name}`).clientHeight > 30),
    ...[...document.querySelectorAll('.precisecache-panel, .precisecache-panel *')]
        .filter((e) => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX !== 'visible')
        .map((e) => e.className),
]"""


@pytest.mark.parametrize("language", ["ru", "zh"])
def test_the_page_speaks_the_users_language(page, language):
    page.set_setting("Comfy.Locale", language)
    page.open()
    page.load(graph_of(steps=20, seed=ord(language[0])))  # a new seed, so that it runs
    words = json.loads((LOCALES / language / "main.json").read_text("utf-8"))["PreciseCache"]
    nodes = json.loads((LOCALES / language / "nodeDefs.json").read_text("utf-8"))
    (run,) = page.report(page.queue(), STATS)["runs"]
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    assert page.js("return document.querySelector('.precisecache-button').textContent") == words["Copy JSON"]
    time = words["%1 s"].replace("%1", time_text(run["seconds"]["sampling"]).removesuffix(" s"))
    shown_time = page.js("return document.querySelector('.precisecache-panel dl .seconds').textContent")
    assert shown_time == words["time"] + time
    first = words["call %1: computed"].replace("%1", "1")
    assert page.js("return document.querySelector('.precisecache-strip title').textContent").startswith(first + "\n")
    labels = page.js("return app.graph.getNodeById(arguments[0]).widgets.map((w) => w.label)", LFCACHE)
    assert nodes["PreciseCacheLFCache"]["inputs"]["preset"]["name"] in labels
    assert page.js(TOO_LONG) == []
    page.js("app.canvas.ds.scale = 0.9; app.canvas.ds.offset = [-430, 60]; app.graph.setDirtyCanvas(true, true)")
    page.picture(f"language_{language}")
