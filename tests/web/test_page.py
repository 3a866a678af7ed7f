"""Cache Stats in the page, as a user sees it: the live panel, reload, removal, two nodes, badges."""

import json
from pathlib import Path

import pytest
from panel_texts import BLOCKCACHE, LFCACHE, STATS, badge, block_badge, graph_of, shown, texts, time_text

from precisecache_core.record.accumulated import accumulated
from tools.graph.shipped import only_node

ROOT = Path(__file__).resolve().parents[2]

# records [event, file that added the listener] for every listener of these events
LISTENERS = r"""
window.listeners = [];
const {addEventListener} = EventTarget.prototype;
EventTarget.prototype.addEventListener = function (kind, ...rest) {
    if (['precisecache.calls', 'executed', 'reconnected'].includes(kind)) {
        const files = new Error().stack.match(/https?:\/\/[^\s?)]*?\.js/g) ?? [];
        window.listeners.push([kind, files.find((file) => file.includes('/extensions/')) ?? files.at(-1) ?? '']);
    }
    return addEventListener.call(this, kind, ...rest);
};
"""

# records every different text that a panel shows
WATCH = """
const widget = app.graph.getNodeById(arguments[0]).widgets.find((w) => w.name === 'precisecache_panel');
window.seen = [];
window.watcher?.disconnect();
window.watcher = new MutationObserver(() => {
    const text = widget.element.querySelector('.precisecache-runs').textContent;
    if (window.seen.at(-1) !== text) window.seen.push(text);
});
window.watcher.observe(widget.element, {childList: true, subtree: true, characterData: true});
"""


def test_the_store_is_the_only_listener_and_panel_and_badges_show_its_runs(page):
    """The browser records the listeners from before any script of the page runs."""
    script = page.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTENERS})
    page.open()
    page.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    page.load(graph_of(seed=13))
    heard = page.js("return window.listeners")
    assert [kind for kind, _ in heard].count("precisecache.calls") == 1
    mine = sorted((kind, file.split("/")[-1]) for kind, file in heard if f"/extensions/{ROOT.name}/" in file)
    assert mine == [(kind, "store.js") for kind in ("executed", "precisecache.calls", "reconnected")]
    (run,) = page.report(page.queue(), STATS)["runs"]
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    assert run["nodes"] == [LFCACHE, BLOCKCACHE] and shown(page.panel(STATS)) == [texts(run)]
    assert page.js("return app.graph.getNodeById(arguments[0]).badges.at(-1).text", LFCACHE) == badge(run)


def test_an_interrupted_run_says_so(page):
    page.load(graph_of(seed=12, steps=5000))  # more than any machine completes before the interrupt
    page.queue()
    page.wait("document.querySelector('.precisecache-run')")
    page.interrupt()
    page.wait("document.querySelector('.precisecache-state')?.textContent == 'ended'")
    (run,) = page.panel(STATS)
    assert any("was interrupted" in warning for warning in run["warnings"])
    assert 0 < len(run["decisions"]) < 5000


def decisions(run):
    return run["decisions"]


def test_the_panel_follows_a_run_and_ends_with_the_report(page):
    page.load(graph_of(seed=1))
    assert page.panel(STATS) == []
    page.js(WATCH, STATS)
    prompt = page.queue()
    report = page.report(prompt, STATS)
    page.wait("(window.seen.at(-1) ?? '').match(/time[0-9]/)")
    seen = page.js("return window.seen")
    assert len(seen) >= 2, seen  # while it ran, and the report
    assert shown(page.panel(STATS)) == [texts(run) for run in report["runs"]]
    badges = page.js(
        "return [arguments[0], arguments[1]].map((id) => app.graph.getNodeById(id).badges.at(-1).text)",
        LFCACHE,
        BLOCKCACHE,
    )
    (run,) = report["runs"]
    assert badges == [badge(run), block_badge(run)]
    page.picture("panel")


def test_the_report_is_there_after_the_page_was_loaded_again(page):
    page.load(graph_of(seed=2))
    report = page.report(page.queue(), STATS)
    page.wait("app.graph.getNodeById(a[0]).widgets[0].element.querySelector('.seconds')", STATS)
    workflow = page.call("app.graphToPrompt().then((p) => p.workflow)")
    assert "precisecache_panel" not in json.dumps(workflow) and "seconds" not in json.dumps(workflow)
    page.open()
    page.call("app.loadGraphData(a[0])", workflow)
    page.wait("app.graph.getNodeById(a[0])?.widgets?.[0].element.querySelector('.seconds')", STATS)
    assert shown(page.panel(STATS)) == [texts(run) for run in report["runs"]]
    (run,) = report["runs"]
    for node, text in ((LFCACHE, badge(run)), (BLOCKCACHE, block_badge(run))):
        page.wait("app.graph.getNodeById(a[0]).badges.some((b) => (b.text ?? b()?.text) == a[1])", node, text)


@pytest.mark.parametrize(
    "settings, is_rehearsed",
    [(dict(preset="budget", share=0.3), True), (dict(preset="turbo", factor_t=1, factor_hw=1), False)],
    ids=["rehearsed", "not_rehearsed"],
)
def test_the_plan_is_shown_during_the_run_and_after_it(page, settings, is_rehearsed):
    page.load(graph_of(seed=30, **settings))
    page.js(WATCH, STATS)
    report = page.report(page.queue(), STATS)
    page.wait("(window.seen.at(-1) ?? '').match(/time[0-9]/)")
    (run,) = report["runs"]
    plan = run["plan"]
    assert plan["is_rehearsed"] is is_rehearsed and run["threshold"] is None
    assert shown(page.panel(STATS)) == [texts(run)]
    live = [text for text in page.js("return window.seen") if "call" in text and "ended" not in text]
    assert live and all(f"plan: {plan['budget']} of 40 stepscomputed" in text for text in live), live
    page.picture("plan" if is_rehearsed else "plan_without_rehearsal")


def test_a_run_that_alpha_decides_shows_no_plan(page):
    page.load(graph_of(seed=31, preset="custom", alpha=0.5))
    report = page.report(page.queue(), STATS)
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    (run,) = shown(page.panel(STATS))
    assert run == texts(report["runs"][0])
    assert run["plan"] is None and run["hasCurve"] and run["hasThreshold"]
    legend = page.js("return [...document.querySelectorAll('.precisecache-legend > *')].map((e) => e.textContent)")
    assert legend == ["LFD", "accumulated LFD", "threshold"]
    (run,) = report["runs"]
    points, line = (
        page.js("""const of = (kind, name) => document.querySelector(`.precisecache-curve .${kind}`).getAttribute(name);
        return [of('accumulated', 'points'), of('threshold', 'y1')]""")
    )
    heights = [100 - float(point.split(",")[1]) for point in points.split()]
    share = [height / (100 - float(line)) for height in heights]
    expected = accumulated(run["lfd"], run["decisions"]) / run["threshold"]
    reused = [i for i, decision in enumerate(run["decisions"]) if decision == "R"]
    assert reused and [share[i] for i in reused] == pytest.approx([expected[i] for i in reused], abs=0.02)
    assert all(share[i] < 1 for i in reused)
    page.picture("alpha")


def test_every_call_says_why_it_was_computed_or_reused(page):
    page.load(graph_of(seed=32))
    (run,) = page.report(page.queue(), STATS)["runs"]
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    hints = page.js("return [...document.querySelectorAll('.precisecache-strip title')].map((e) => e.textContent)")
    assert len(hints) == run["calls"]
    assert hints[0].split("\n")[:3] == ["call 1: computed", "computed in any case", f"sigma {run['sigmas'][0]:.2f}"]
    said = {"w": "computed in any case", "p": "as planned", "u": "not planned: nothing could be reused"}
    for hint, decision, reason in zip(hints, run["decisions"], run["reasons"]):
        kind = {"C": "computed", "R": "reused"}[decision]
        assert hint.split("\n")[0].endswith(f": {kind}") and hint.split("\n")[1] == said[reason]


def test_warnings_are_first_and_in_sight(page):
    page.load(graph_of(seed=33, steps=6))
    (run,) = page.report(page.queue(), STATS)["runs"]
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    assert any("too few" in warning for warning in run["warnings"])
    inside = page.js("""const box = document.querySelector('.precisecache-runs').getBoundingClientRect();
        const all = [...document.querySelectorAll('.precisecache-warning')].map((e) => e.getBoundingClientRect());
        return all.map((one) => one.height > 0 && one.top >= box.top && one.bottom <= box.bottom + 1)""")
    assert len(inside) == len(run["warnings"]) and all(inside), inside
    page.picture("warnings")


def test_a_node_removed_in_mid_run_leaves_nothing(page):
    page.load(graph_of(seed=3, steps=100))
    prompt = page.queue()
    page.wait("document.querySelector('.precisecache-run')")
    page.js("app.graph.remove(app.graph.getNodeById(arguments[0]))", STATS)
    assert page.history(prompt)["status"]["status_str"] == "success"
    assert page.js("return document.querySelectorAll('.precisecache-panel').length") == 0


def with_second_sampler(graph):
    """The graph with a second expert: its own LFCache, KSampler and Cache Stats; also returns the latter's id."""
    ids = {
        only_node(graph, kind): f"{number}"
        for number, kind in enumerate(
            ("PreciseCacheLFCache", "PreciseCacheBlockCache", "KSampler", "PreciseCacheStats"), start=50
        )
    }
    for old, new in ids.items():
        node = json.loads(json.dumps(graph[old]))
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in ids:
                node["inputs"][name] = [ids[value[0]], value[1]]
        graph[new] = node
    graph["51"]["inputs"]["cache_rate"] = 0.2
    graph["52"]["inputs"]["steps"] = 20
    graph["54"] = {"class_type": "PreviewAny", "inputs": {"source": ["53", 1]}, "_meta": {"title": "Report"}}
    return graph, "53"


def test_undo_paste_and_a_reload_in_mid_run_keep_what_is_shown(page):
    page.load(graph_of(seed=20))
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow))")  # a graph in API format has no id
    report = page.report(page.queue(), STATS)
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    # as undo does, this makes the whole graph anew
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow))")
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    assert shown(page.panel(STATS)) == [texts(run) for run in report["runs"]]
    (run,) = report["runs"]
    page.wait(
        "app.graph.getNodeById(a[0]).badges.some((b) => (b.text ?? b()?.text) == a[1])",
        LFCACHE,
        badge(run),
    )
    # a copy is another node, with nothing to show, and the original keeps what it has
    page.js(
        """const node = app.graph.getNodeById(arguments[0]); app.canvas.selectNode(node);
        app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard();""",
        STATS,
    )
    copy = page.wait("app.graph.nodes.find((n) => n.type == 'PreciseCacheStats' && n.id != a[0])?.id", STATS)
    assert page.panel(copy) == [] and shown(page.panel(STATS)) == [texts(run)]
    page.js("app.graph.remove(app.graph.getNodeById(arguments[0]))", copy)

    page.js("app.graph.nodes.find((n) => n.type == 'KSampler').widgets.find((w) => w.name == 'steps').value = 400")
    prompt = page.queue()
    page.wait("document.querySelector('.precisecache-state')?.textContent.startsWith('call')")
    workflow = page.call("app.graphToPrompt().then((p) => p.workflow)")
    page.open()
    page.call("app.loadGraphData(a[0])", workflow)
    page.wait("document.querySelector('.precisecache-panel')?.textContent.includes('KSampler')")
    report = page.report(prompt, STATS)
    page.wait("document.querySelector('.precisecache-strip')?.ariaLabel == a[0]", report["runs"][0]["decisions"])
    assert shown(page.panel(STATS)) == [texts(run) for run in report["runs"]]


def test_a_run_of_another_graph_is_not_shown(page):
    """Every page gets the events of a program that names no client, and many graphs have the same node ids."""
    page.load(graph_of(seed=21))
    other = graph_of(seed=22)
    sampler = other[only_node(other, "KSampler")]
    other["77"] = other.pop(sampler["inputs"]["latent_image"][0])
    sampler["inputs"]["latent_image"] = ["77", 0]
    page.js("""window.heard = [];
        window.comfyAPI.api.api.addEventListener('precisecache.calls', ({detail}) => window.heard.push(detail));""")
    answer = page.ask("/prompt", {"prompt": other})
    page.wait("window.heard.some((event) => event.prompt_id === a[0] && event.is_ended)", answer["prompt_id"])
    page.wait_for_answers()
    assert page.panel(STATS) == []
    assert not any(page.js("return app.graph.nodes.map((n) => (n.badges ?? []).length > 1)"))


def test_a_graph_with_another_id_shows_no_run_of_the_graph_open_before(page):
    """Many graphs have the same node ids, and people open several in tabs."""
    # clears the runs of earlier tests: their graphs have no id, so only their node ids identify them
    page.ask("/history", {"clear": True})
    page.open()
    page.load(graph_of(seed=23))
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow))")
    page.report(page.queue(), STATS)
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    runs = page.panel(STATS)
    workflow = page.call("app.graphToPrompt().then((p) => p.workflow)")
    page.call("app.loadGraphData(a[0])", {**workflow, "id": "11111111-2222-4333-8444-555555555555"})
    page.wait_for_answers()  # the page looks for the graph's runs in the history
    assert page.panel(STATS) == []
    assert not any(page.js("return app.graph.nodes.map((n) => (n.badges ?? []).length > 1)"))
    page.call("app.loadGraphData(a[0])", workflow)
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    assert page.panel(STATS) == runs


def test_the_panel_distinguishes_no_run_yet_from_no_run_of_this_model(page):
    page.ask("/history", {"clear": True})
    page.open()
    graph = graph_of(seed=24)
    page.load(graph)
    assert page.panel(STATS) == []
    page.wait("document.querySelector('.precisecache-empty').textContent == 'No run yet'")
    graph[STATS]["inputs"]["model"] = [only_node(graph, "PreciseCacheTinyModel"), 0]  # not the sampler's MODEL
    page.load(graph)
    page.history(page.queue())
    page.wait("document.querySelector('.precisecache-empty')?.textContent.startsWith('No run of this model.')")


def test_two_nodes_show_their_own_runs_or_those_of_both(page):
    graph, second = with_second_sampler(graph_of(seed=4))
    page.load(graph)
    prompt = page.queue()
    reports = [page.report(prompt, node) for node in (STATS, second)]
    for node in (STATS, second):
        page.wait("app.graph.getNodeById(a[0]).widgets[0].element.querySelector('.seconds')", node)
    mine, other = ([texts(run) for run in report["runs"]] for report in reports)
    assert shown(page.panel(STATS)) == mine and shown(page.panel(second)) == other
    assert mine[0]["decisions"] != other[0]["decisions"]
    badges = page.js(
        "return app.graph.nodes.filter((n) => n.type == 'PreciseCacheLFCache').map((n) => n.badges.at(-1).text)"
    )
    assert badges == [badge(run) for report in reports for run in report["runs"]]
    page.js("app.graph.getNodeById(arguments[0]).widgets[0].element.querySelector('input').click()", STATS)
    page.wait("app.graph.getNodeById(a[0]).widgets[0].element.querySelectorAll('.precisecache-run').length == 2", STATS)
    assert sorted(shown(page.panel(STATS)), key=decisions) == sorted(
        [texts(run, True) for report in reports for run in report["runs"]], key=decisions
    )
    # and live: the next run of both
    page.js("app.graph.nodes.filter((n) => n.type == 'KSampler').forEach((n) => (n.widgets[0].value = 77))")
    prompt = page.queue()
    page.history(prompt)
    page.wait("app.graph.getNodeById(a[0]).widgets[0].element.querySelectorAll('.seconds').length == 2", STATS)
    both = [texts(run, True) for node in (STATS, second) for run in page.report(prompt, node)["runs"]]
    assert sorted(shown(page.panel(STATS)), key=decisions) == sorted(both, key=decisions)
    page.picture("two_nodes")


PREVIOUS = "return document.querySelector('.precisecache-previous')?.textContent ?? null"


def test_the_previous_run_of_the_sampler_is_shown_beside_the_new_one(page):
    page.load(graph_of(seed=81, preset="turbo"))
    (before,) = page.report(page.queue(), STATS)["runs"]
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    assert page.js(PREVIOUS) is None
    page.js(
        "app.graph.getNodeById(arguments[0]).widgets.find((w) => w.name == 'preset').value = 'base'",
        LFCACHE,
    )
    (now,) = page.report(page.queue(), STATS)["runs"]
    page.wait("document.querySelector('.precisecache-strip')?.ariaLabel == a[0]", now["decisions"])
    page.wait("document.querySelector('.precisecache-label')?.textContent == a[0]", now["label"])
    seconds = time_text(before["seconds"]["sampling"])
    line = f"previous run: {before['computed']} of {before['calls']} computed, {seconds} ({before['label']})"
    assert page.js(PREVIOUS) == line
    page.picture("previous")


def test_a_template_just_opened_shows_no_run_of_another_page(page):
    """Everyone who opens a template has a graph with the same id."""
    graph = graph_of(seed=82)
    page.load(graph)
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow)).then(() => true)")
    saved = page.call("app.graphToPrompt()")
    body = {"prompt": saved["output"], "extra_data": {"extra_pnginfo": {"workflow": saved["workflow"]}}}
    theirs = page.ask("/prompt", body | {"client_id": "another page"})["prompt_id"]
    page.history(theirs)
    page.call("app.loadGraphData(a[0]).then(() => true)", saved["workflow"])
    page.wait_for_answers()
    assert page.panel(STATS) == []
    mine = page.report(page.queue(), STATS)
    page.open()
    page.call("app.loadGraphData(a[0]).then(() => true)", saved["workflow"])
    page.wait("document.querySelector('.precisecache-panel .seconds')")
    assert shown(page.panel(STATS)) == [texts(run) for run in mine["runs"]]
