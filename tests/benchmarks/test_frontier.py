"""The frontier benchmark: its rows, what it measures, and what it concludes."""

import json
from unittest import mock

import pytest

from benchmarks.meter import Meter
from benchmarks.methods import Schedule, all_rows, own_rows
from benchmarks.tables import frontier
from precisecache_core.lfcache.config import LFCacheConfig

SCHEDULE = Schedule(steps=10, shape=(1, 16, 2, 8, 8))


def rows(*names):
    found = [row for row in all_rows() if row.name in names]
    assert len(found) == len(names)
    return found


def test_every_row_has_a_name_of_its_own():
    names = [row.name for row in all_rows()]
    assert len(names) == len(set(names))
    assert {*frontier.PRESETS.values(), frontier.EASYCACHE_DEFAULT} <= set(names)


@pytest.mark.usefixtures("host_of_benchmarks")
def test_a_record_has_cost_and_quality(bench):
    records = {
        r["name"]: r
        for r in frontier.measure(bench, SCHEDULE, 0, rows("lfcache fitted 0.7", "uniform fitted 0.50", "fora N2"))
    }
    uniform, lfcache, fora = (records[n] for n in ("uniform fitted 0.50", "lfcache fitted 0.7", "fora N2"))
    # three calls of warm-up, then every second of the other seven
    assert uniform["computed"] == 6 and uniform["cost"] == pytest.approx(0.6) and uniform["trial_cost"] == 0
    assert lfcache["computed"] == lfcache["decisions"].count("C")
    assert lfcache["cost"] == pytest.approx(lfcache["computed"] / 10 + lfcache["trial_cost"])
    assert fora["computed"] == 5 and 0.5 < fora["cost"] < 0.52  # the rest of the network is always computed
    for record in records.values():
        assert 10 < record["psnr"] < 60 and 0.3 < record["ssim"] < 1
    json.dumps(list(records.values()))


def test_other_settings_change_the_run_and_leave_nothing_behind(bench):
    own = rows("lfcache fitted 0.35")
    candidates = [row for row in all_rows() if row.family.startswith("candidate") and row.setting == "0.35"]
    before, *records, after = frontier.measure(bench, SCHEDULE, 1, [*own, *candidates, *own])
    assert len(records) == len(candidates) > 5 and after == before
    for record in records:
        assert 10 < record["psnr"] <= 100 and len(record["decisions"]) == SCHEDULE.steps
    found = {record["name"]: record for record in records}
    assert found["candidate no trials 0.35"]["trial_cost"] == 0 < before["trial_cost"]
    assert found["candidate warmup 4 0.35"]["decisions"].startswith("CCCC")


def test_other_corrections_change_the_video_and_not_the_cost(bench):
    own = rows("uniform corrected 0.20")
    variants = [row for row in all_rows() if row.family.startswith("corrector ") and row.setting == "0.20"]
    before, *records, after = frontier.measure(bench, SCHEDULE, 1, [*own, *variants, *own])
    assert len(records) == len(variants) == 6 and after == before
    assert {r["cost"] for r in records} == {before["cost"]}
    assert len({r["psnr"] for r in [before, *records]}) == 7


def test_counting_each_shape_once_equals_counting_every_evaluation(bench):
    known = {}
    meters = [Meter(), Meter(known), Meter(known)]
    for meter in meters:
        bench.sample(meter.attach(bench.lfcache(alpha=0.5)), steps=10)
    assert meters[0].flops == meters[1].flops == meters[2].flops > meters[0].trial_flops > 0
    assert meters[0].calls == meters[2].calls and len(known) == 2


def test_points_between_and_beyond_a_curve():
    points = [(0.2, 30.0), (0.4, 40.0), (0.5, 42.0)]
    assert frontier.interpolate(points, 0.3) == pytest.approx(35)
    assert frontier.interpolate(points, 41, axis=1) == pytest.approx(0.45)
    assert frontier.interpolate(points, 0.1) is None
    assert frontier.lead(points, 0.45, 44) == "+3.00"
    assert frontier.lead(points, 0.1, 29) == "> -1.00"
    assert frontier.lead(points, 0.6, 50) == "-"


def test_families_are_compared_on_the_same_clips_only():
    def record(name, seed, cost, psnr):
        return {
            "name": name,
            "seed": seed,
            "cost": cost,
            "psnr": psnr,
            "computed": 1,
            "trial_cost": 0,
            "ssim": None,
            "lpips": None,
        }

    records = [record("lfcache plan 0.27", s, 0.3, 40) for s in (0, 1)]
    records += [record("uniform fitted 0.50", s, 0.5, 41 + s) for s in (0, 1)]
    records += [record("uniform fitted 0.25", s, 0.1, 31 + s) for s in (0, 1)]
    records += [record("uniform fitted 0.20", 0, 0.3, 90)]  # one clip only
    groups = frontier.by_name(records, clips=2)
    assert frontier.curve(groups, "uniform fitted", {0, 1}) == [(0.1, 31.5), (0.5, 41.5)]
    line = next(x for x in frontier.table_lines(groups) if x.startswith("lfcache plan 0.27"))
    assert "+3.50" in line
    assert any("1 settings within its range: mean +3.50" in x for x in frontier.target_lines(groups))


def test_own_rows_hold_the_presets():
    settings = {row.name: row for row in own_rows()}
    assert {frontier.PRESETS["base"], frontier.PRESETS["turbo"], "paper 0.5"} <= settings.keys()
    bench = mock.Mock()
    for preset in ("base", "turbo"):
        settings[frontier.PRESETS[preset]].attach(bench, "model", SCHEDULE)
        config = LFCacheConfig.from_preset(preset)
        bench.lfcache.assert_called_with("model", extra_steps=config.extra_steps, share=config.share)


def test_times_are_of_interleaved_runs(bench):
    from benchmarks.tables import wall_clock

    evaluations = []  # a clock that only the network moves
    handle = bench.model.model.diffusion_model.register_forward_pre_hook(lambda *given: evaluations.append(1))
    try:
        times = wall_clock.rounds(bench, SCHEDULE, rows("uniform fitted 0.20"), 2, lambda: len(evaluations))
    finally:
        handle.remove()
    # three calls of warm-up, then one of the other seven
    assert times == {"uncached": [10, 10], "uniform fitted 0.20": [4, 4]}
    lines = wall_clock.table({"uncached": [2.0, 4.0, 3.0], "row": [1.0, 1.0, 1.5]})
    assert lines[2].split()[1:] == ["1.00", "50.0%", "25.0%", "to", "50.0%"]
