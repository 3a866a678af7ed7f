"""What the plot shows, and how it fills in the calls without a trial."""

import sys

import numpy as np
import pytest

from precisecache_core.lfcache.controller import LFCacheController
from precisecache_core.record.accumulated import accumulated, between_trials
from precisecache_core.record.axes import Axes, Picture, ticks
from precisecache_core.record.plot import (
    COMPUTED,
    CORRECTION,
    ERROR,
    REUSED,
    THRESHOLD,
    lines_of,
    plot_runs,
    title_of,
)


def test_missing_lfds_are_interpolated_between_the_trials():
    lfd = [None, 8.0, 2.0, None, None, 8.0, None, 4.0]
    decisions = "CCRRRRRC"
    assert between_trials(lfd, decisions) == pytest.approx([0, 8, 2, 4, 6, 8, 6, 4])
    assert accumulated(lfd, decisions).tolist() == pytest.approx([0, 0, 2, 6, 12, 20, 26, 0])


def test_after_the_last_trial_the_lfd_stays_constant():
    assert between_trials([None, 1.0, None, None], "CRRR") == [0, 1, 1, 1]


def test_the_curve_is_the_controllers_error():
    controller = LFCacheController(alpha=50.0, warmup=2)
    lfds, decisions, errors = [], "", []
    for call in range(40):
        if controller.needs_trial:
            lfds.append(float(controller.distance + 1))
            decisions += "CR"[controller.decide(lfds[-1])]
            errors.append((call, controller.error))
        else:
            controller.skip_trial()
            lfds.append(None)
            decisions += "R"
    curve = accumulated(lfds, decisions)
    assert None in lfds and "C" in decisions[10:]
    for call, error in errors:
        assert curve[call] == pytest.approx(error)


def run_of(decisions, **more):
    run = {
        "model": "WAN21",
        "calls": len(decisions),
        "decisions": decisions,
        "trials": 3,
        "threshold": 2.0,
        "computed": decisions.count("C"),
        "reused": decisions.count("R"),
        "blockcache": None,
        "warnings": [],
        "lfd": [None, 4.0][: len(decisions)] + [1.0] * (len(decisions) - 2),
    }
    return run | more


def colors(picture):
    """The hex colours that more than 20 pixels of the picture have."""
    values, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    return {"#{:02X}{:02X}{:02X}".format(*value) for value, count in zip(values, counts) if count > 20}


@pytest.mark.parametrize("decisions, expected", [("CCCRRC", {COMPUTED, REUSED}), ("CCCCCC", {COMPUTED})])
def test_the_picture_has_the_colours_of_its_decisions(decisions, expected):
    assert colors(plot_runs([run_of(decisions)])) & {COMPUTED, REUSED} == expected


def test_a_run_that_reused_nothing_says_why_in_the_picture():
    silent, telling = (plot_runs([run_of("CCCCCC", warnings=warnings)]) for warnings in ([], ["alpha is 0"]))
    assert (silent != telling).any()
    assert (plot_runs([run_of("CCCRRC", warnings=["a"])]) == plot_runs([run_of("CCCRRC")])).all()


def test_a_run_can_have_a_name_and_skipped_blocks():
    assert (plot_runs([run_of("CCCRRC")], ["flash"]) != plot_runs([run_of("CCCRRC")])).any()
    blocks = {"blocks": 4, "pivotal": [[0, 1]], "block_calls": 24, "block_calls_skipped": 6}
    assert plot_runs([run_of("CCCRRC", blockcache=blocks)]).shape[0] > plot_runs([run_of("CCCRRC")]).shape[0]


def test_a_run_without_a_call_is_drawn():
    assert plot_runs([run_of("", trials=0, threshold=None)]).shape[2] == 3


PLAN = {"steps": 6, "budget": 4, "forced": 2, "computed": 4, "unplanned": 0, "is_rehearsed": True}


def labels(run):
    return [label for label, *_ in lines_of(run)]


def test_a_planned_run_shows_its_plan_and_no_threshold():
    corrections = [None, None, None, None, None, 0.02]
    planned = run_of("CCCRRC", plan=PLAN, threshold=None, corrections=corrections)
    assert colors(plot_runs([planned])) & {ERROR, THRESHOLD, CORRECTION} == {CORRECTION}
    assert title_of(planned, "WAN21") == "WAN21: 4 of 6 calls computed, 2 reused (plan 4 of 6 steps)"
    assert labels(planned) == ["LFD, rehearsed"]


def test_a_run_that_alpha_decides_shows_what_accumulated_and_its_threshold():
    assert colors(plot_runs([run_of("CCCRRC")])) >= {ERROR, THRESHOLD}
    assert labels(run_of("CCCRRC")) == ["LFD", "accumulated LFD", "threshold"]
    assert labels(run_of("CCCRRC", trials=0))[0] == "LFD, extrapolated"


def test_a_plan_without_a_rehearsal_has_no_lfd():
    unrehearsed = run_of("CCCRRC", plan=PLAN | {"is_rehearsed": False}, threshold=None, lfd=[None] * 6, trials=0)
    assert labels(unrehearsed) == []
    picture = plot_runs([unrehearsed])
    axis = picture[40:360, :70]  # the numbers and the name of the axis at the left
    assert (axis == 255).all() and (plot_runs([run_of("CCCRRC")])[40:360, :70] != 255).any()


def test_the_earliest_of_many_runs_are_left_out_and_the_picture_says_so():
    many, few = ([run_of("CCCRRC")] * count for count in (10, 8))
    assert plot_runs(many).shape[0] == plot_runs(few).shape[0] + 22
    assert (plot_runs(many)[22:] == plot_runs(few)).all() and (plot_runs(many)[:22] != 255).any()


def test_a_value_is_drawn_where_the_axes_say():
    picture = Picture(100, 60)
    axes = Axes(picture, (10, 5, 90, 45), (0, 8), (-1, 3))
    assert axes.at(0, -1) == (10, 45) and axes.at(8, 3) == (90, 5) and axes.at(2, 1) == (30, 25)
    axes.dots([(2, 1)], "#FF0000", radius=2)
    red = np.argwhere((picture.finished() == (255, 0, 0)).all(-1))
    assert abs(red.mean(0) - (24.5, 29.5)).max() < 1


@pytest.mark.parametrize(
    "low, high, most, is_whole, expected",
    [
        (0, 10, 5, False, [0, 2, 4, 6, 8, 10]),
        (0, 0.03, 4, False, [0, 0.01, 0.02, 0.03]),
        (0, 4, 12, True, [0, 1, 2, 3, 4]),
        (0.5, 3.5, 5, True, [1, 2, 3]),
        (0, 51, 12, True, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50]),
        (1, 1, 5, False, []),
    ],
)
def test_ticks_are_round_numbers(low, high, most, is_whole, expected):
    assert ticks(low, high, most, is_whole) == pytest.approx(expected)


def test_without_pillow_the_picture_is_white(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert (plot_runs([run_of("CCCRRC")]) == 255).all() and "Pillow is not installed" in caplog.text
