"""The share of a call that a trial takes where weights are streamed."""

import pytest

from benchmarks.tables import trial_share
from benchmarks.tables.trial_share import BUSES, SPEEDS, rows, seconds, share
from precisecache_core.lfcache.trial_cost import LIMIT_STREAMED

pytestmark = pytest.mark.usefixtures("host_of_benchmarks")


def test_a_pass_takes_as_long_as_the_longer_of_arithmetic_and_copies():
    assert seconds(5e12, 12e9, speed=10, bus=12) == pytest.approx(1.0)
    assert seconds(5e12, 24e9, speed=10, bus=12) == pytest.approx(2.0)
    assert seconds(5e12, 0, speed=10, bus=12) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "nbytes, expected",
    [
        (0, 0.01),  # the model is on the GPU: the share is that of the MACs
        (12e9, 0.1),  # a trial waits for the weights, a call does not
        (240e9, 1.0),  # both wait for the weights
    ],
)
def test_share(nbytes, expected):
    assert share(50e12, 0.5e12, nbytes, speed=10, bus=12) == pytest.approx(expected)


def test_rows(bench, monkeypatch):
    monkeypatch.setattr(trial_share, "SIZES", ((832, 480),))
    monkeypatch.setattr(trial_share, "FRAMES", (1,))
    lines = list(rows("wan1.3b"))
    assert [line.split()[4] for line in lines] == ["fp16", "fp8"]
    for line in lines:
        *_, on_gpu = line.split("%")[0].split()
        cells = [cell for cell in line.replace("*", "").split()[7:] if cell.endswith("%")]
        streamed = [float(cell.rstrip("%")) for cell in cells[-len(BUSES) * len(SPEEDS) :]]
        assert all(value >= float(on_gpu) - 0.1 for value in streamed)
        slow, fast = streamed[: len(BUSES)], streamed[len(BUSES) :]
        assert slow == sorted(slow, reverse=True) and all(a <= b for a, b in zip(slow, fast))
        assert line.count("*") == sum(value > 100 * LIMIT_STREAMED for value in streamed)
