"""What became of one graph, and the table of many."""

from dataclasses import dataclass, field

from precisecache_core.record.report import speedup_text
from precisecache_core.record.speedup import Speedup, saved_text

HEAD = ("file", "seconds", "computed", "reused", "speed-up", "time saved", "state")
MAX_REASON = 200  # characters; the whole error is printed where it happens


@dataclass(frozen=True)
class Outcome:
    """state: done, failed, stopped or not run. seconds: from queueing to the end. runs: its sampler runs."""

    name: str
    state: str
    seconds: float = 0.0
    runs: list = field(default_factory=list)
    reason: str = ""

    @property
    def calls(self):
        """(computed, reused) calls of all runs, or None without a run that PreciseCache has seen."""
        return tuple(sum(run[key] for run in self.runs) for key in ("computed", "reused")) if self.runs else None

    @property
    def speedup(self):
        return speedup_of(self.runs)

    def line(self):
        """`done in 12.3 s: 10 calls computed, 10 reused, 1.9x faster (estimate), saved 5.2 s`."""
        parts = []
        if self.calls:
            parts.append("{} calls computed, {} reused".format(*self.calls))
        if self.speedup:
            parts.append(speedup_text(self.speedup.ratio, self.speedup.saved))
        return f"{self.state} in {saved_text(self.seconds)}{': ' if parts else ''}{', '.join(parts)}"


def speedup_of(runs):
    """The Speedup of several sampler runs together, of those that have an estimate; None if none has.

    The estimate of several needs the seconds that each one sampled for. A report has them; an event has not.
    """
    runs = [run for run in runs if run.get("speedup") is not None]
    if len(runs) < 2:
        return Speedup(runs[0]["speedup"], runs[0]["saved_seconds"]) if runs else None
    saved = sum(run["saved_seconds"] for run in runs)
    sampling = sum(run["seconds"]["sampling"] if "seconds" in run else sampling_of(run) for run in runs)
    return Speedup((sampling + saved) / sampling if sampling else 1.0, saved)


def sampling_of(run):
    """The seconds that a run sampled for, from its speed-up and what that saved; 0 where nothing was saved."""
    return run["saved_seconds"] / (run["speedup"] - 1) if run["speedup"] != 1 else 0.0


def table(outcomes):
    """Lines: a head, a row for each outcome, and the totals of those that are done."""
    done = [outcome for outcome in outcomes if outcome.state == "done"]
    states = [outcome.state for outcome in outcomes]
    tally = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(("done", "failed", *states)))
    total = Outcome("total", tally, sum(o.seconds for o in outcomes), [run for o in done for run in o.runs])
    rows = [HEAD, *(row(outcome) for outcome in outcomes), row(total)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEAD) - 1)]
    lines = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:-1], widths[1:]), r[-1]]) for r in rows]
    ruler = "-" * max(map(len, lines[:1] + lines[-1:]))
    return [lines[0], ruler, *lines[1:-1], ruler, lines[-1]]


def row(outcome):
    computed, reused = outcome.calls or ("-", "-")
    speedup = outcome.speedup
    return (
        outcome.name,
        f"{outcome.seconds:.1f}",
        f"{computed}",
        f"{reused}",
        f"{speedup.ratio:.2f}x" if speedup else "-",
        ("-" * (speedup.saved < 0) + saved_text(abs(speedup.saved))) if speedup else "-",
        f"{outcome.state}: {short(outcome.reason)}" if outcome.reason else outcome.state,
    )


def short(reason):
    """The line of an error that says what is wrong; with the next one, unless that is of a traceback or a log."""
    first, second = [*reason.strip().splitlines(), "", ""][:2]
    is_detail = second and not first.endswith(":") and not second.startswith(" ")
    text = f"{first}; {second}" if is_detail else first.rstrip(":")
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."
