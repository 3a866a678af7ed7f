"""The search for the best schedule, and the table of correction by sampler."""

import json
import sys
from unittest import mock

import pytest

from benchmarks.methods import all_rows, limit_name
from benchmarks.peers.uniform import uniform_pattern
from benchmarks.tables import correction, frontier, limit

pytestmark = pytest.mark.usefixtures("host_of_benchmarks")


def test_a_search_finds_the_best_of_a_smooth_score():
    target = (0, 1, 3, 7, 12)
    search = limit.Search(lambda calls: -sum(abs(a - b) for a, b in zip(calls, target)), 20, 5)
    assert search.run(limit.starts(20, 5), 500) == target


def test_a_search_stops_at_its_number_of_runs_and_goes_on_from_what_is_known():
    seen = []

    def score(calls):
        seen.append(calls)
        return -abs(sum(calls) - 60)

    known = {}
    limit.Search(score, 20, 5, known).run(limit.starts(20, 5), 10)
    first = len(seen)
    assert len(set(seen)) == first == len(known)
    limit.Search(score, 20, 5, known).run(limit.starts(20, 5), 100)
    assert len(set(seen)) == len(seen) > first


@pytest.mark.parametrize("power", limit.POWERS)
@pytest.mark.parametrize("calls, computed", [(20, 5), (30, 12), (50, 10)])
def test_spreads_have_as_many_calls_as_asked_for(calls, computed, power):
    found = limit.spread(calls, computed, power)
    assert len(found) == computed and found[0] == 0 and found[-1] < calls and list(found) == sorted(set(found))


def test_the_command_keeps_rows_that_the_frontier_shows(tmp_path, capsys):
    command = ["limit", "--steps", "10", "--clips", "1", "--shape", "1", "16", "2", "8", "8", "--shares", "0.2"]
    with mock.patch.object(sys, "argv", [*command, "--evaluations", "12", "--out", str(tmp_path)]):
        limit.main()
    (file,) = tmp_path.glob("frontier_*.limit.jsonl")
    record = json.loads(file.read_text())
    assert record["name"] == limit_name("corrected", 0.2) and record["name"] in {row.name for row in all_rows()}
    assert record["decisions"].count("C") == sum(uniform_pattern(10, 0.2)) == record["computed"]
    base = tmp_path / file.name.removesuffix(".limit.jsonl")
    assert frontier.by_name(frontier.read(base), 1)[record["name"]][0]["psnr"] == record["psnr"]
    tried = [json.loads(line) for line in (tmp_path / f"limit_{base.name.removeprefix('frontier_')}.jsonl").open()]
    assert record["psnr"] == max(entry["psnr"] for entry in tried)


def test_correction_is_measured_against_the_same_plan(tmp_path):
    few = {"one step": ("euler",), "noise": ("euler_ancestral",)}
    command = ["correction", "--clips", "1", "--steps", "10", "--shape", "1", "16", "2", "8", "8"]
    with (
        mock.patch.object(correction, "SAMPLERS", few),
        mock.patch.object(sys, "argv", [*command, "--out", str(tmp_path)]),
    ):
        correction.main()
    text = (tmp_path / "correction.txt").read_text()
    assert "stands aside" in next(line for line in text.splitlines() if line.startswith("euler_ancestral"))
    assert "stands aside" not in next(line for line in text.splitlines() if line.startswith("euler "))
    assert "gain over all" in text
