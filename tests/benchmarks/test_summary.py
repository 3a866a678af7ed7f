"""The table of all models and schedules that the README shows."""

import json
import sys

import pytest

from benchmarks.tables import summary
from benchmarks.tables.frontier import by_name

POINTS = {  # {row: (cost, PSNR)}
    "easycache 0.2": (0.4, 38.0),
    "lfcache plan turbo": (0.3, 40.0),
    "lfcache plan base": (0.4, 44.0),
    "lfcache plan 0.20": (0.2, 36.0),
    "uniform corrected 0.50": (0.5, 43.0),
    "uniform corrected 0.20": (0.3, 35.0),
    "taylorseer O1 first 3 N3": (0.35, 41.0),
    "pab 2,6,1": (0.3, 39.5),
}


def records(clips=2, **changed):
    """Records of POINTS; the clips' PSNRs differ by 2 dB around the mean."""
    points = POINTS | {name.replace("_", " "): value for name, value in changed.items()}
    extra = {"trial_cost": 0, "computed": 1, "ssim": None, "lpips": None}
    return [
        {"seed": seed, "name": name, "cost": cost, "psnr": psnr - 1 + 2 * seed, **extra}
        for name, (cost, psnr) in points.items()
        for seed in range(clips)
    ]


def test_the_cells_compare_at_equal_quality_and_at_equal_cost():
    cells = summary.cells(by_name(records(), 2))
    # LFCache has 38 dB half-way from 20 % to 30 %, and 44 dB at 40 %; even spreads have 35 and 39 dB where turbo and
    # base are
    assert cells == [
        "40.0 %, 38.0 dB",
        "30.0 %, 40.0 dB",
        "40.0 %, 44.0 dB",
        "62 %",
        "+6.0 dB",
        "+5.0 dB, least +5.0",
    ]


def test_a_quality_below_all_plans_is_said():
    groups = by_name(records(**{"easycache_0.2": (0.4, 30.0)}), 2)
    assert summary.cells(groups)[3] == "below 50 %"


def test_a_preset_is_compared_schedule_by_schedule():
    found = [by_name(records(lfcache_plan_turbo=point), 2) for point in ((0.3, 40.0), (0.2, 38.5), (0.1, 37.0))]
    assert summary.preset_line("turbo", found) == (
        "turbo: better than EasyCache on 2, by 0.5 to 2.0 dB at 50 to 75 % of its cost; "
        "worse than EasyCache on 1, by 1.0 to 1.0 dB at 25 to 25 % of its cost"
    )
    assert "worse" not in summary.preset_line("base", found)


def test_the_nearest_peer_is_the_least_below_the_curve():
    distance, name, cost, schedule = summary.nearest_peer({"euler": by_name(records(), 2)})
    assert (name, schedule) == ("pab 2,6,1", "euler") and (distance, cost) == pytest.approx((0.5, 0.3))


def test_the_command_reads_the_records_of_both_models(tmp_path, monkeypatch, capsys):
    for folder in (tmp_path, tmp_path / "deep"):
        folder.mkdir(exist_ok=True)
        for schedule in summary.SCHEDULES:
            lines = [json.dumps(record) for record in records()]
            (folder / f"frontier_{schedule.name}.0.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(sys, "argv", ["summary", "--out", str(tmp_path), "--clips", "2"])
    summary.main()
    text = (tmp_path / "summary.txt").read_text()
    assert text.strip() in capsys.readouterr().out and text.count("| 40.0 %, 38.0 dB |") == 12
    assert "turbo: better than EasyCache on 12, by 2.0 to 2.0 dB at 75 to 75 % of its cost\n" in text
    assert "nearest peer: pab 2,6,1, 0.50 dB below LFCache at 30.0 %" in text
    monkeypatch.setattr(sys, "argv", ["summary", "--out", str(tmp_path), "--clips", "3"])
    with pytest.raises(SystemExit, match="not all rows have 3 clips"):
        summary.main()
