"""How much faster a run was than it would have been without the caches, estimated from its own times."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Speedup:
    """An estimate. ratio: how many times as fast as without the caches. saved: seconds, negative if time was lost."""

    ratio: float
    saved: float


def estimate(
    sampling: float, calls: Sequence[float], computed: Sequence[float], is_whole: Sequence[bool]
) -> Speedup | None:
    """Estimate from the seconds of a run; None if it gives nothing to estimate from.

    Source: ours. Without the caches, every call takes as long as the median of those that were computed whole. The
    median, because the first call of a run often waits for memory or a compiler.
    sampling: of the whole run. calls: of every call, with trials and our own work. computed: what the model took in
    each computed call. is_whole: for each of these, whether no block was skipped.
    """
    whole = [seconds for seconds, is_one in zip(computed, is_whole) if is_one]
    shortened = [seconds for seconds, is_one in zip(computed, is_whole) if not is_one]
    reused = len(calls) - len(computed)
    if not whole or sampling <= 0 or not (reused or shortened):
        return None
    ours = sum(calls) - sum(computed)
    missing = (reused + len(shortened)) * statistics.median(whole) - sum(shortened)
    saved = missing - ours
    return Speedup((sampling + saved) / sampling, saved)


def ratio_text(ratio: float, origin: str) -> str:
    """How many times as fast, in words: `2.4x faster (estimate)`, or `0.97x as fast (measured)` below 1.05.

    origin: where the number comes from, "estimate" or "measured".
    """
    return f"{ratio:.2g}x faster ({origin})" if ratio >= 1.05 else f"{ratio:.2f}x as fast ({origin})"


def saved_text(seconds: float) -> str:
    """Seconds as people say them: `0.8 s`, `12 s`, `6 min 10 s`, `1 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
