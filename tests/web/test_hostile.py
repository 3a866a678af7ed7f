"""Malformed and hostile events and reports: the page does not break and executes nothing in them."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.graph.shipped import load_flash, only_node

STATS, LFCACHE, BLOCKCACHE = (
    only_node(load_flash(), kind) for kind in ("PreciseCacheStats", "PreciseCacheLFCache", "PreciseCacheBlockCache")
)

HOSTILE = [
    "<img src=x onerror='window.hacked = 1'>",
    "<script>window.hacked = 1</script>",
    "javascript:window.hacked=1",
    "${window.hacked = 1}",
    "{{constructor.constructor('window.hacked = 1')()}}",
    "'; window.hacked = 1; '",
    "__proto__",
    "constructor",
    "\u202e\u0000\ud7ff",
    "5:5:5",
    "-1",
    "x" * 5000,
]

RUN = "0123456789ab"
GOOD = {
    "version": 2,
    "prompt_id": "p",
    "run": RUN,
    "nodes": [LFCACHE, BLOCKCACHE],
    "stats": [STATS],
    "model": "WAN21",
    "steps": 10,
    "calls": 3,
    "computed": 2,
    "reused": 1,
    "trials": 1,
    "first": 1,
    "decisions": "CR",
    "lfd": [None, 1.5],
    "threshold": 2.0,
    "plan": {"budget": 4, "steps": 10},
    "cache_bytes": 100,
    "speedup": 1.9,
    "saved_seconds": 75.5,
    "blocks": {"block_calls": 32, "block_calls_skipped": 4},
    "standing_aside": [],
    "is_ended": False,
}
REPORT = {
    "version": 2,
    "runs": [
        {
            "run": RUN,
            "nodes": [LFCACHE, BLOCKCACHE],
            "model": "WAN21",
            "latent_shape": [1],
            "steps": 2,
            "calls": 2,
            "computed": 1,
            "reused": 1,
            "trials": 1,
            "decisions": "CR",
            "sigmas": [1, 0.5],
            "lfd": [None, 1],
            "plan": {
                "share": 0.5,
                "steps": 2,
                "budget": 1,
                "forced": 1,
                "computed": 1,
                "unplanned": 1,
                "is_rehearsed": True,
            },
            "alpha": 0.5,
            "delta_max": 1,
            "threshold": 0.5,
            "trial_agreement": None,
            "trial_share": None,
            "uses_trials": True,
            "seconds": {"sampling": 1, "compute": 1, "trial": 0},
            "speedup": 1.9,
            "saved_seconds": 75.5,
            "standing_aside": ["blockcache"],
            "cache_bytes": {"lfcache": 1, "blockcache": 0},
            "warnings": ["one"],
            "blockcache": {"blocks": 16, "pivotal": [[0, 1]], "block_calls": 32, "block_calls_skipped": 4},
        }
    ],
}

WRONG_RUNS = [None, 7, True, "", RUN[1:], RUN + "0", RUN.upper(), f"{RUN}\n", [RUN], {"0": RUN}]
WRONG_NODES = [None, 5, LFCACHE, {"0": LFCACHE}, [int(LFCACHE)], [[LFCACHE]], [{"id": LFCACHE}], ["5:5:5", "", ":"]]

texts = st.sampled_from(HOSTILE) | st.text(max_size=20)
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def spoiled(draw, good):
    """A good message in which some values, at any depth, are replaced or missing."""
    message = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        at = message
        while True:
            key = draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else draw(st.integers(0, len(at) - 1))
            if isinstance(at[key], (dict, list)) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            break
        if isinstance(at, dict) and draw(st.integers(0, 4)) == 0:
            del at[key]
            break
        at[key] = draw(junk)
    return message


# dispatches events and reports as the page does when they come from the websocket
SEND = """
(async ([eventsText, reportsText, node, prompt]) => {
if (!window.faults) {
    window.faults = [];
    window.onerror = (message) => window.faults.push(`${message}`);
    window.onunhandledrejection = (event) => window.faults.push(`${event.reason?.stack ?? event.reason}`);
    // the page catches what a listener throws and only logs it
    for (const kind of ['warn', 'error']) {
        const original = console[kind];
        console[kind] = (...args) => {
            if (args.some((arg) => `${arg?.stack ?? arg}`.match(/Uncaught error in|PreciseCache/)))
                window.faults.push(args.map((arg) => `${arg?.stack ?? arg}`).join(' '));
            original(...args);
        };
    }
}
const {api} = window.comfyAPI.api;
const [events, reports] = [JSON.parse(eventsText), JSON.parse(reportsText)];
for (const detail of events) api.dispatchEvent(new CustomEvent('precisecache.calls', {detail}));
for (const report of reports) api.dispatchEvent(new CustomEvent('executed',
    {detail: {node, display_node: node, prompt_id: prompt, output: {precisecache: [report]}}}));
// the page asks the server which prompt this is
do await new Promise((done) => setTimeout(done)); while (window.asked !== window.answered);
const made = document.querySelectorAll('.precisecache-panel img, .precisecache-panel script');
return [window.faults, window.hacked ?? null, made.length];
})(a)
"""


def send(page, events, reports=(), prompt="p"):
    """[faults, result of executed text, elements made from text] after sending these; `prompt`: that of the reports."""
    return page.call(SEND, json.dumps(events), json.dumps(list(reports)), STATS, prompt)


def badges(page):
    """The texts of LFCache's and BlockCache's badges, None for no badge."""
    return page.js(
        r"""return [...arguments].map((id) => (app.graph.getNodeById(id).badges ?? [])
        .map((b) => b.text ?? b()?.text).find((text) => /^\d+ % /.test(text)) ?? null)""",
        LFCACHE,
        BLOCKCACHE,
    )


def test_malformed_messages_break_nothing(page):
    page.load(load_flash())

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(spoiled(GOOD) | junk, min_size=1, max_size=5), st.lists(spoiled(REPORT) | junk, max_size=2))
    def check(events, reports):
        assert send(page, events, reports) == [[], None, 0]

    check()
    send(page, [{**GOOD, "prompt_id": "good", "first": 0, "decisions": "CCR", "lfd": [None, 3, 1]}])
    (run,) = page.panel(STATS)
    assert (run["decisions"], run["computed"], run["state"]) == ("CCR", "2", "call 3, 10 steps")
    assert run["speedup"] == "1.9× faster, saved 1 min 16 s (estimate)"
    assert badges(page) == ["33 % reused", "13 % skipped"]


def test_an_id_of_the_wrong_type_is_ignored(page):
    """An event without a valid run id is ignored, a report without one is version 1; a wrong id finds no node."""
    page.load(load_flash())
    assert send(page, [{**GOOD, "run": value} for value in WRONG_RUNS]) == [[], None, 0]
    assert page.panel(STATS) == [] and badges(page) == [None, None]
    for number, value in enumerate(WRONG_NODES):
        assert send(page, [{**GOOD, "prompt_id": f"{number}", "model": repr(value), "nodes": value}]) == [[], None, 0]
        assert [run["model"] for run in page.panel(STATS)] == [repr(value)] and badges(page) == [None, None]
    for field, values in (("nodes", WRONG_NODES), ("run", WRONG_RUNS)):
        for number, value in enumerate(values):
            run = {**REPORT["runs"][0], "model": repr(value), field: value}
            assert send(page, [], [{"version": 2, "runs": [run]}], f"{field} {number}") == [[], None, 0]
            assert [(run["model"], run["state"]) for run in page.panel(STATS)] == [(repr(value), "ended")]
            assert badges(page) == ([None, None] if field == "nodes" else ["50 % reused", "13 % skipped"])


WRONG_PLANS = [
    None,
    7,
    "plan",
    [],
    {},
    {"budget": 4},
    {"budget": HOSTILE[0], "steps": 10},
    {"budget": -1, "steps": 1.5},
]


def test_a_malformed_plan_is_not_shown(page):
    page.load(load_flash())
    for number, value in enumerate(WRONG_PLANS):
        assert send(page, [{**GOOD, "prompt_id": f"{number}", "plan": value}]) == [[], None, 0]
        assert [run["plan"] for run in page.panel(STATS)] == [None]
        report = {"version": 2, "runs": [{**REPORT["runs"][0], "plan": value}]}
        assert send(page, [], [report], f"report {number}") == [[], None, 0]
        assert [(run["plan"], run["state"]) for run in page.panel(STATS)] == [(None, "ended")]


@pytest.mark.parametrize(
    "more, expected",
    [
        ({}, "plan: 1 of 2 steps, from a rehearsal · computed 1, 1 unplanned"),
        ({"unplanned": 0}, "plan: 1 of 2 steps, from a rehearsal · computed 1"),
        ({"unplanned": HOSTILE[0]}, "plan: 1 of 2 steps, from a rehearsal · computed 1"),
        ({"is_rehearsed": "true"}, "plan: 1 of 2 steps · computed 1, 1 unplanned"),
        ({"computed": None}, "plan: 1 of 2 steps, from a rehearsal"),
    ],
)
def test_of_a_plan_the_valid_values_are_shown(page, more, expected):
    page.load(load_flash())
    run = REPORT["runs"][0]
    assert send(page, [], [{"version": 2, "runs": [run | {"plan": run["plan"] | more}]}]) == [[], None, 0]
    assert [run["plan"] for run in page.panel(STATS)] == [expected]


def test_a_fault_in_the_page_would_be_seen(page):
    page.load(load_flash())
    send(page, [])
    page.js("""window.comfyAPI.api.api.addEventListener('precisecache.calls', () => { throw new Error('seen'); });
        window.comfyAPI.api.api.addEventListener('precisecache.calls', async () => { throw new Error('seen'); });""")
    faults, _, _ = send(page, [GOOD])
    assert sum("seen" in fault for fault in faults) == 2
    page.browser.get_log("browser")  # removes these two errors
    page.open()


def test_text_is_shown_as_text(page):
    page.load(load_flash())
    for number, name in enumerate(HOSTILE[:6]):
        send(page, [{**GOOD, "prompt_id": f"{number}", "model": name}])
        assert page.panel(STATS)[0]["model"] == name
    report = copy.deepcopy(REPORT)
    report["runs"][0] |= {"model": HOSTILE[0], "warnings": HOSTILE[:3]}
    send(page, [GOOD])
    assert send(page, [], [report]) == [[], None, 0]
    (run,) = page.panel(STATS)
    assert run["model"] == HOSTILE[0] and run["warnings"] == HOSTILE[:3]


def test_calls_that_were_missed_show_as_unknown(page):
    page.load(load_flash())
    send(
        page,
        [
            {**GOOD, "prompt_id": "a", "first": 0, "decisions": "CCR", "lfd": [None, 3, 1]},
            {**GOOD, "prompt_id": "a", "calls": 7, "first": 5, "decisions": "RC", "lfd": [2, None]},
        ],
    )
    assert page.panel(STATS)[0]["decisions"] == "CCR??RC" and page.panel(STATS)[0]["lfds"] == 3
    # a page that was loaded in mid-run has only the last calls
    send(page, [{**GOOD, "prompt_id": "b", "calls": 4, "first": 3, "decisions": "R", "lfd": [1]}])
    assert page.panel(STATS)[0]["decisions"] == "???R"


def test_a_report_replaces_the_events_of_its_run_whichever_comes_first(page):
    page.load(load_flash())
    for prompt in ("p", "q"):  # the second time in the other order
        event, end = ({**GOOD, "prompt_id": prompt, "is_ended": is_ended} for is_ended in (False, True))
        for message in (event, REPORT, end) if prompt == "p" else (REPORT, event, end):
            send(page, *([], [message], prompt) if message is REPORT else ([message],))
        (run,) = page.panel(STATS)
        assert (run["state"], run["seconds"], run["decisions"]) == ("ended", "1.0 s", "CR")
        assert badges(page) == ["50 % reused", "13 % skipped"]


def test_runs_that_differ_only_in_their_id_are_two(page):
    page.load(load_flash())
    run = REPORT["runs"][0]
    send(page, [], [{**REPORT, "runs": [run, {**run, "run": "ba9876543210"}, run]}])
    assert len(page.panel(STATS)) == 2
    send(page, [{**GOOD, "prompt_id": "live"}, {**GOOD, "prompt_id": "live", "run": "ba9876543210"}])
    assert [run["state"] for run in page.panel(STATS)] == ["call 3, 10 steps"] * 2


def test_a_report_of_version_1_shows_in_the_panel_and_gives_no_badge(page):
    page.load(load_flash())
    old = {name: value for name, value in REPORT["runs"][0].items() if name not in ("run", "nodes")}
    assert send(page, [], [{"version": 1, "runs": [old, old]}]) == [[], None, 0]
    assert [run["state"] for run in page.panel(STATS)] == ["ended"] * 2 and badges(page) == [None, None]


def test_messages_without_a_plan_are_shown(page):
    """Earlier versions sent none."""
    page.load(load_flash())
    event, run = ({k: v for k, v in good.items() if k != "plan"} for good in (GOOD, REPORT["runs"][0]))
    assert send(page, [event]) == [[], None, 0]
    assert [(run["plan"], run["state"]) for run in page.panel(STATS)] == [(None, "call 3, 10 steps")]
    assert send(page, [], [{"version": 2, "runs": [run]}]) == [[], None, 0]
    assert [(run["plan"], run["state"], run["hasThreshold"]) for run in page.panel(STATS)] == [(None, "ended", True)]
