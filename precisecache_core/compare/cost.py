"""What a video took: computed calls, seconds and speed-up, from the report of its sampler runs."""

import json
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The sampler runs of one video, taken together.

    label: their caches in a few words; "" in reports without it.
    computed, calls: model calls; computed is None if another step cache does not say how many it reused.
    seconds: of the calls, or of the whole sampling on devices whose calls' times are not known; None if neither is
        known.
    estimate: how many times as fast as without the caches, by the report; None if it does not say.
    """

    label: str
    computed: int | None
    calls: int
    seconds: float | None
    estimate: float | None

    def speedup(self, reference: "Cost | None") -> tuple[float | None, bool | None]:
        """(How many times as fast; whether that is measured), or (None, None) if nothing says it.

        Measured are the reference's seconds over these, where both are known; otherwise it is the report's estimate.
        """
        if reference is not None and reference.seconds and self.seconds:
            return reference.seconds / self.seconds, True
        return (None, None) if self.estimate is None else (self.estimate, False)


def read_cost(text: str, name: str = "report") -> Cost | None:
    """The cost that a report tells, or None if there is no run in it.

    text: one report, or several one after the other, for a video that two MODELs made (Wan2.2's experts). All runs
        count, each once.
    name: of the setting, for the message.
    Raises ValueError naming it, the value and the remedy if the text is something else.
    """
    try:
        runs = {run["run"]: run for report in _documents(text) for run in report["runs"]}
        return _sum(list(runs.values())) if runs else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        start = text[:40] if isinstance(text, str) else text
        raise ValueError(
            f"PreciseCache: {name} must be the report of Cache Stats (JSON), got {start!r}. "
            "Connect the report output of a Cache Stats node."
        ) from error


def _documents(text: str) -> list:
    """The JSON values of a text that contains one after the other."""
    found, decoder, text = [], json.JSONDecoder(), text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip(" \t\r\n,;")
    return found


def _sum(runs: list[dict]) -> Cost:
    calls = [(run.get("other_cache") or run)["calls"] for run in runs]
    labels = dict.fromkeys(str(run["label"]) for run in runs if run.get("label"))
    computed, seconds = [_computed(run) for run in runs], [_seconds(run["seconds"]) for run in runs]
    known = [count for count in computed if count is not None]
    times = [time for time in seconds if time is not None]
    return Cost(
        " + ".join(labels),
        sum(known) if len(known) == len(runs) else None,
        sum(calls),
        sum(times) if len(times) == len(runs) else None,
        _estimate(runs),
    )


def _computed(run: dict) -> int | None:
    """Calls that neither PreciseCache nor another step cache reused; None if the other one does not say."""
    other = run.get("other_cache")
    if other is None:
        return run["calls"] - run["reused"]
    return None if other["reused"] is None else other["calls"] - other["reused"] - run["reused"]


def _seconds(seconds: dict) -> float | None:
    for name in ("calls", "sampling"):
        value = seconds.get(name)
        if value is not None and math.isfinite(value):
            return float(value)
    return None


def _estimate(runs: list[dict]) -> float | None:
    """All runs without the caches over all runs; None where one that reused or skipped something has no estimate."""
    if len(runs) == 1:
        speedup = runs[0].get("speedup")
        return None if speedup is None else float(speedup)
    if any(run.get("saved_seconds") is None and not _is_whole(run) for run in runs):
        return None
    saved = sum(run.get("saved_seconds") or 0.0 for run in runs)
    sampling = sum(run["seconds"]["sampling"] or 0.0 for run in runs)
    return (sampling + saved) / sampling if saved and sampling else None


def _is_whole(run: dict) -> bool:
    """Whether a run reused and skipped nothing."""
    return not (run["reused"] or run.get("other_cache") or (run["blockcache"] or {}).get("block_calls_skipped"))
