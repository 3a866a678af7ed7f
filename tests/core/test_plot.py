"""What the plot shows, and how it fills in the calls without a trial."""

import numpy as np
import pytest

from precisecache_core.lfcache.controller import LFCacheController
from precisecache_core.record.plot import (
    COMPUTED,
    CORRECTION,
    ERROR,
    REUSED,
    THRESHOLD,
    accumulated,
    between_trials,
    plot_runs,
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
    pytest.importorskip("matplotlib")
    assert colors(plot_runs([run_of(decisions)])) & {COMPUTED, REUSED} == expected


def test_a_run_that_reused_nothing_says_why_in_the_picture():
    pytest.importorskip("matplotlib")
    silent, telling = (plot_runs([run_of("CCCCCC", warnings=warnings)]) for warnings in ([], ["alpha is 0"]))
    assert (silent != telling).any()
    assert (plot_runs([run_of("CCCRRC", warnings=["a"])]) == plot_runs([run_of("CCCRRC")])).all()


def test_a_run_can_have_a_name_and_skipped_blocks():
    pytest.importorskip("matplotlib")
    assert (plot_runs([run_of("CCCRRC")], ["flash"]) != plot_runs([run_of("CCCRRC")])).any()
    blocks = {"blocks": 4, "pivotal": [[0, 1]], "block_calls": 24, "block_calls_skipped": 6}
    assert plot_runs([run_of("CCCRRC", blockcache=blocks)]).shape[0] > plot_runs([run_of("CCCRRC")]).shape[0]


def test_a_run_without_a_call_is_drawn():
    pytest.importorskip("matplotlib")
    assert plot_runs([run_of("", trials=0, threshold=None)]).shape[2] == 3


PLAN = {"steps": 6, "budget": 4, "forced": 2, "computed": 4, "unplanned": 0, "is_rehearsed": True}


@pytest.fixture
def written(monkeypatch):
    """The texts of all titles and labels that are drawn from now on."""
    axes = pytest.importorskip("matplotlib.axes").Axes
    found = []
    for name in ("set_title", "set_ylabel", "plot"):
        original = getattr(axes, name)

        def listening(axis, *args, original=original, **kwargs):
            found.extend([arg for arg in args if isinstance(arg, str)] + [kwargs.get("label")])
            return original(axis, *args, **kwargs)

        monkeypatch.setattr(axes, name, listening)
    return found


def test_a_planned_run_shows_its_plan_and_no_threshold(written):
    corrections = [None, None, None, None, None, 0.02]
    planned = run_of("CCCRRC", plan=PLAN, threshold=None, corrections=corrections)
    assert colors(plot_runs([planned])) & {ERROR, THRESHOLD, CORRECTION} == {CORRECTION}
    assert "WAN21: 4 of 6 calls computed, 2 reused (plan 4 of 6 steps)" in written
    assert "LFD, rehearsed" in written and "accumulated LFD" not in written


def test_a_plan_without_a_rehearsal_has_no_label_for_lfds(written):
    plot_runs([run_of("CCCRRC", plan=PLAN | {"is_rehearsed": False}, threshold=None, lfd=[None] * 6, trials=0)])
    assert "low-frequency difference" not in written
    plot_runs([run_of("CCCRRC")])
    assert "low-frequency difference" in written
