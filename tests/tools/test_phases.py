"""The line of a phase, on a terminal and elsewhere."""

import io

import pytest

from tools import phases
from tools.phases import Phase, bar, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def rows(self):
        """What the terminal showed: the states of each of its lines."""
        return [[state.rstrip() for state in row.split("\r") if state] for row in self.getvalue().split("\n")]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; its list's item is the time."""
    monkeypatch.setattr(phases, "TICK_SECONDS", 3600)
    now = [100.0]
    return now


def test_durations_by_hand():
    assert [duration(s) for s in (0, 3.44, 74.4, 119.4, 134, 3600)] == [
        "0.0 s",
        "3.4 s",
        "74 s",
        "119 s",
        "2 min 14 s",
        "60 min 00 s",
    ]


def test_bars_by_hand():
    assert bar(0.25) == "[#####---------------]  25%"
    assert bar(-1) == f"[{'-' * 20}]   0%" and bar(1.5) == f"[{'#' * 20}] 100%"


def test_a_terminal_shows_one_line_that_is_rewritten(clock):
    out = Terminal()
    with Phase("uncached", "> ", out, clock=lambda: clock[0]) as phase:
        clock[0] += 2
        phase.step(5, 10)
        clock[0] += 0.01
        phase.step(6, 10)  # too early to be drawn
        clock[0] += 72
        phase.step(9, 10)
    half, most = "[##########----------]  50%", "[##################--]  90%"
    assert out.rows() == [
        ["> uncached  0.0 s", f"> uncached  {half}  2.0 s  step 5 of 10"]
        + [f"> uncached  {most}  74 s  step 9 of 10", "> uncached: 74 s"],
        [],
    ]


def test_the_last_line_covers_what_was_there(clock):
    out = Terminal()
    with Phase("a", out=out, clock=lambda: clock[0]) as phase:
        clock[0] += 1
        phase.advance(0.5, "a long detail")
    *_, before, last = out.getvalue().removesuffix("\n").split("\r")
    assert len(last) == len(before) and last.rstrip() == "a: 1.0 s"


def test_a_line_is_cut_before_the_terminals_edge(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    with Phase("a phase with a long name", out=out, clock=lambda: clock[0]):
        pass
    assert out.rows()[0][0] == "a phase with a long"


def test_elsewhere_there_is_a_line_at_the_start_and_one_at_the_end(clock):
    out = io.StringIO()
    with Phase("uncached", out=out, clock=lambda: clock[0]) as phase:
        assert out.getvalue() == "uncached ...\n"
        phase.step(5, 10)
        phase.result = "3.42 s"
    assert out.getvalue() == "uncached ...\nuncached: 3.42 s\n"


@pytest.mark.parametrize("error, end", [(ValueError, "failed"), (KeyboardInterrupt, "stopped")])
def test_a_phase_that_does_not_end_well_says_so(clock, error, end):
    for out in (io.StringIO(), Terminal()):
        with pytest.raises(error), Phase("uncached", out=out, clock=lambda: clock[0]):
            clock[0] += 1
            raise error
        assert out.getvalue().rstrip().endswith(f"uncached: {end} after 1.0 s")


def test_a_measured_share_is_asked_for_at_each_drawing(clock):
    out, shares = Terminal(), iter([0.0, 0.5])
    with Phase("installing", out=out, clock=lambda: clock[0], measure=lambda: next(shares)) as phase:
        clock[0] += 1
        phase.advance()
    assert " 50%  1.0 s" in out.rows()[0][1]
