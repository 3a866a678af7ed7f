"""What a video took, read from reports, and the words for it."""

import json

import pytest

from precisecache_core.compare.cost import Cost, read_cost
from precisecache_core.compare.entry import entry_line
from precisecache_core.record.speedup import ratio_text


def run(name="a", calls=10, reused=4, seconds=6.0, **more):
    return {
        "run": name,
        "label": "LFCache base",
        "calls": calls,
        "computed": calls - reused,
        "reused": reused,
        "seconds": {"sampling": seconds + 2, "calls": seconds},
        "speedup": None,
        "saved_seconds": None,
        "blockcache": None,
        **more,
    }


def text(*runs):
    return json.dumps({"version": 2, "runs": runs}, indent=1)


def other(calls, reused):
    return {"name": "EasyCache", "threshold": 0.2, "calls": calls, "reused": reused}


def test_one_run():
    assert read_cost(text(run(speedup=1.5))) == Cost("LFCache base", 6, 10, 6.0, 1.5)
    assert read_cost(text(run(seconds=1.0) | {"seconds": {"sampling": 3.0, "calls": None}})).seconds == 3.0
    assert read_cost(text(run() | {"seconds": {"sampling": None}})).seconds is None
    less = run()
    del less["label"]
    assert read_cost(text(less)).label == ""


@pytest.mark.parametrize(
    "calls, told, computed, of",
    [(10, other(10, 3), 7, 10), (6, other(10, 4), 6, 10), (10, other(10, None), None, 10)],
)
def test_calls_that_another_cache_reused_are_not_computed(calls, told, computed, of):
    cost = read_cost(text(run(calls=calls, reused=0, other_cache=told)))
    assert (cost.computed, cost.calls) == (computed, of)


def test_all_runs_of_a_video_count_each_once():
    first, second = run("a", saved_seconds=12.0, speedup=2.5), run("b", 20, 0, 30.0, label="uncached")
    cost = Cost("LFCache base + uncached", 26, 30, 36.0, pytest.approx((8 + 32 + 12) / 40))
    assert read_cost(text(first, second)) == cost
    assert read_cost(text(first) + "\n" + text(second)) == cost
    assert read_cost(f"{text(first)}, {text(first, second)}") == cost


@pytest.mark.parametrize(
    "more", [{"reused": 1}, {"other_cache": other(10, 2)}, {"blockcache": {"block_calls_skipped": 3}}]
)
def test_two_runs_have_no_estimate_if_one_of_them_lacks_it(more):
    assert read_cost(text(run("a", saved_seconds=1.0), run("b", **{"reused": 0, **more}))).estimate is None
    assert read_cost(text(run("a", saved_seconds=1.0), run("b", reused=0))).estimate is not None


@pytest.mark.parametrize("report", ["", " \n", '{"runs": []}'])
def test_nothing_is_read_from_no_run(report):
    assert read_cost(report) is None


@pytest.mark.parametrize(
    "report",
    ["x", "{", "5", "[]]", '{"runs": 1}', '{"runs": [1]}', text({"run": "a"}), text(run(seconds=1) | {"calls": "9"})],
)
def test_what_is_no_report_is_refused_by_name(report):
    with pytest.raises(ValueError, match="PreciseCache: third_report must be the report of Cache Stats"):
        read_cost(report, "third_report")


@pytest.mark.parametrize(
    "mine, reference, expected",
    [
        (2.0, 5.0, (2.5, True)),
        (2.0, None, (1.7, False)),
        (None, 5.0, (1.7, False)),
        (0.0, 5.0, (1.7, False)),
    ],
)
def test_a_measured_speed_up_comes_before_the_estimate(mine, reference, expected):
    cost = Cost("", 1, 2, mine, 1.7)
    assert cost.speedup(Cost("", 2, 2, reference, None)) == expected
    assert Cost("", 1, 2, mine, None).speedup(None) == (None, None)


@pytest.mark.parametrize(
    "ratio, words",
    [(2.44, "2.4x faster (measured)"), (1.04, "1.04x as fast (measured)"), (0.5, "0.50x as fast (measured)")],
)
def test_ratios_in_words(ratio, words):
    assert ratio_text(ratio, "measured") == words


def entry(**more):
    return {"label": "mine", "psnr": 38.421, "ssim": 0.98123, "equal": False, **more}


@pytest.mark.parametrize(
    "more, words",
    [
        ({}, "38.42 dB, SSIM 0.9812"),
        ({"lpips": 0.0041, "computed": None, "seconds": None, "speedup": None}, "38.42 dB, SSIM 0.9812, LPIPS 0.0041"),
        (
            {"computed": 12, "calls": 30, "seconds": 41.0, "speedup": 2.4, "is_measured": True},
            "38.42 dB, SSIM 0.9812, 12 of 30 computed, 41 s, 2.4x faster (measured)",
        ),
        (
            {"psnr": None, "equal": True, "computed": 9, "calls": 9, "speedup": 1.3, "is_measured": False},
            "equal, 9 of 9 computed, 1.3x faster (estimate)",
        ),
        ({"psnr": None, "seconds": 0.84}, "not finite, 0.8 s"),
    ],
)
def test_a_line_for_a_video(more, words):
    assert entry_line(entry(**more)) == f"mine: {words}"


def test_a_line_for_the_reference():
    assert entry_line({"label": "a", "computed": 3, "calls": 3, "seconds": 98.0}) == "a: 3 of 3 computed, 1 min 38 s"
