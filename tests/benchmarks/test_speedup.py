"""The speed-up that a run says of itself, against one that a clock of our own measures."""

import pytest

from benchmarks.tables import speedup

pytestmark = pytest.mark.usefixtures("host_of_benchmarks")


def test_a_case_is_measured_between_two_uncached_runs(bench):
    times = iter([0, 10, 20, 24, 30, 42])  # uncached 10 s, cached 4 s, uncached 12 s
    found = speedup.measure(bench, ("euler", 12, "turbo", False, {}), bench.noise(), clock=lambda: next(times))
    assert found["measured"] == pytest.approx(11 / 4) and found["estimated"] > 0
    assert found["calls"] == 12 and found["computed"] == 8


def test_the_table_says_how_many_estimates_are_near():
    case = ("euler", 30, "base", True, {})
    results = [dict(measured=2.0, estimated=estimated, computed=11, calls=30) for estimated in (2.08, 1.8, None)]
    lines = speedup.lines_of([(case, result) for result in results])
    assert "euler 30, base and BlockCache" in lines[1] and "+4.0%" in lines[1] and "-10.0%" in lines[2]
    assert "none" in lines[3] and lines[-1] == "1 of 2 estimates within 5%; the worst is off by 10.0%"
    assert len(speedup.CASES) >= 20 and len(set(map(str, speedup.CASES))) == len(speedup.CASES)
