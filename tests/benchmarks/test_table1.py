"""Table 1 on a diffusers pipeline: what is measured, kept and compared."""

import json

import pytest

pytest.importorskip("diffusers")

from benchmarks import diffusers_clips
from benchmarks.diffusers_methods import METHODS, OURS
from benchmarks.tables import table1


class Clips:
    """A pipeline that makes no video."""

    steps = 8

    class pipe:  # noqa: N801
        class transformer:  # noqa: N801
            @staticmethod
            def disable_cache():
                pass


def row(name, seed, cost, psnr):
    return {
        "name": name,
        "seed": seed,
        "cost": cost,
        "psnr": psnr,
        "ssim": 0.9,
        "lpips": None,
        "seconds": None,
        "speedup": None,
    }


def test_leads_are_taken_at_the_costs_of_the_others():
    methods = [m for m in METHODS if m.name in ("base", "budget 0.2", "flash", "TaylorSeer 2", "TaylorSeer 5")]
    records = [
        *(row("base", seed, 0.6, 60.0) for seed in (0, 1)),
        *(row("budget 0.2", seed, 0.2, 20.0) for seed in (0, 1)),
        row("flash", 0, 0.3, 99.0),
        row("TaylorSeer 2", 0, 0.3, 25.0),
        row("TaylorSeer 2", 1, 0.5, 35.0),
        row("TaylorSeer 5", 0, 0.1, 35.0),
    ]
    found = dict((name, lead) for name, _, lead in table1.leads(table1.points_of(records), methods))
    assert found == {"TaylorSeer 2": pytest.approx(40.0 - 30.0), "TaylorSeer 5": None}
    assert table1.nearest(table1.points_of(records), methods) == [
        ("base", 0.6, None, None),
        ("budget 0.2", 0.2, "TaylorSeer", pytest.approx(20.0 - (35.0 - 5.0 / 3))),
    ]
    text = "\n".join([*table1.table_lines(records, methods), *table1.lead_lines(records, methods)])
    assert "least lead +10.00 dB" in text and "outside of what ours spans" in text and " 60.00" in text


def test_a_cache_of_others_that_cannot_run_is_a_row_that_says_so(tmp_path, monkeypatch):
    calls = []

    def measure(clips, method, seed, reference):
        calls.append((method and method.name, seed))
        if method and method.family == "FasterCache":
            raise RuntimeError("needs both branches in one batch")
        return None, row(method.name if method else "", seed, 0.5, 40.0)

    monkeypatch.setattr(table1, "measure", measure)
    methods = [m for m in METHODS if m.name in ("turbo", "FasterCache 2")]
    path = tmp_path / "records.jsonl"
    for _ in range(2):  # the second time, everything is there
        table1.work(Clips, methods, [0, 1], path)
    assert len(calls) == 6
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["name"] for r in records] == ["turbo", "FasterCache 2"] * 2
    assert "did not run: RuntimeError: needs both branches" in "\n".join(table1.table_lines(records, METHODS))


def test_the_tiny_pipeline_is_measured(monkeypatch):
    monkeypatch.setattr(diffusers_clips, "SHAPE", (1, 16, 2, 8, 8))
    clips = table1.TinyClips("shapes", 8)
    reference = table1.measure(clips, None, 0, None)
    by_name = {m.name: m for m in METHODS}
    ours = table1.measure(clips, by_name["budget 0.4"], 0, reference)[1]
    theirs = table1.measure(clips, by_name["TaylorSeer 3"], 0, reference)[1]
    assert ours["cost"] < 1 and "R" in ours["decisions"] and ours["psnr"] < table1.BEST_PSNR
    assert theirs["cost"] < 1 and not clips.pipe.transformer.is_cache_enabled
    assert {m.family for m in METHODS} >= {
        OURS,
        "flash",
        "FirstBlockCache",
        "TaylorSeer",
        "MagCache",
        "PAB",
        "FasterCache",
    }
