"""The report is plain JSON, and its summary line states counts."""

import json
import math

import pytest

from precisecache_core.record.report import build_report, dump_report, summary_line


def test_nan_and_inf_become_null_however_deep():
    run = {"lfd": [1.5, math.nan, None], "seconds": {"trial": math.inf, "deep": ([-math.inf, 2],)}, 7: "kept"}
    report = build_report([run, {}])
    assert report == {
        "version": 2,
        "runs": [{"lfd": [1.5, None, None], "seconds": {"trial": None, "deep": [[None, 2]]}, "7": "kept"}, {}],
    }
    assert json.loads(dump_report(report)) == report
    assert math.isnan(run["lfd"][1]), "the run entry itself was changed"


def test_a_report_with_nan_cannot_be_dumped():
    with pytest.raises(ValueError):
        dump_report({"lfd": math.nan})


@pytest.mark.parametrize(
    "calls, expected",
    [
        (30, "reused 11 of 30 steps"),
        (60, "reused 11 of 60 calls (30 steps)"),
    ],
)
def test_the_summary_names_calls_where_they_differ_from_steps(calls, expected):
    assert summary_line({"steps": 30, "calls": calls, "reused": 11, "blockcache": None}) == expected


@pytest.mark.parametrize(
    "outcome, expected",
    [
        (
            dict(budget=12, steps=30, computed=12, unplanned=0, is_rehearsed=True),
            "plan: 12 of 30 steps, from a rehearsal, computed 12",
        ),
        (
            dict(budget=8, steps=20, computed=9, unplanned=1, is_rehearsed=False),
            "plan: 8 of 20 steps, computed 9, 1 unplanned",
        ),
    ],
)
def test_the_summary_says_what_became_of_the_plan(outcome, expected):
    run = {"steps": 30, "calls": 30, "reused": 18, "blockcache": None}
    assert summary_line(run | {"plan": outcome}) == f"reused 18 of 30 steps; {expected}"
    assert summary_line(run | {"plan": None}) == "reused 18 of 30 steps"


def test_the_summary_counts_skipped_blocks():
    blocks = {"block_calls": 160, "block_calls_skipped": 36}
    line = summary_line({"steps": 30, "calls": 30, "reused": 20, "blockcache": blocks})
    assert line == "reused 20 of 30 steps, skipped 36 of 160 block calls"
