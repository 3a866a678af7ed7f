"""The nodes for Raylight in the page: they are there without Raylight, and show a report of its workers."""

import json

from test_hostile import REPORT, SEND
from test_inputs import DISABLED, LABEL, SHOWN

LFCACHE, BLOCKCACHE, STATS = "1", "2", "3"
GRAPH = {
    LFCACHE: {"class_type": "PreciseCacheLFCacheRay", "inputs": {"preset": "turbo"}},
    BLOCKCACHE: {"class_type": "PreciseCacheBlockCacheRay", "inputs": {"ray_actors": [LFCACHE, 0]}},
    STATS: {"class_type": "PreciseCacheStatsRay", "inputs": {"ray_actors": [BLOCKCACHE, 0]}},
}
RUN = {**REPORT["runs"][0], "nodes": [LFCACHE, BLOCKCACHE]}
EMPTY = "return document.querySelector('.precisecache-empty')?.textContent"


def send_report(page, runs, prompt):
    report = {"version": 2, "runs": runs}
    assert page.call(SEND, "[]", json.dumps([report]), STATS, prompt) == [[], None, 0]


def test_the_panel_and_the_badges_show_the_report_after_the_run(page):
    page.load(GRAPH)
    assert page.js(EMPTY) == "No run yet. This panel is filled after the run."
    send_report(page, [RUN], "first")
    (run,) = page.panel(STATS)
    assert (run["decisions"], run["blocks"], run["warnings"]) == ("CR", "4 / 32", ["one"])
    badges = page.js(
        "return [...arguments].map((id) => app.graph.getNodeById(id).badges.at(-1).text)", LFCACHE, BLOCKCACHE
    )
    assert badges == ["50 % reused", "13 % skipped"]
    page.picture("raylight")
    send_report(page, [], "second")
    assert page.js(EMPTY).startswith("No run of these workers. Give Cache Stats the ray_actors")


def test_inputs_are_greyed_out_and_folded_away(page):
    page.load(GRAPH)
    assert page.js(DISABLED, LFCACHE) == ["alpha", "share", "warmup"]
    assert page.js(LABEL, LFCACHE, "alpha") == "alpha (not used)"
    for node, shown in ((LFCACHE, {"preset", "alpha", "share"}), (BLOCKCACHE, {"mode", "cache_rate", "reuse_steps"})):
        visible, _ = page.js(SHOWN, node)
        assert {name for name, is_shown in visible.items() if is_shown} == {*shown, "precisecache_advanced"}
