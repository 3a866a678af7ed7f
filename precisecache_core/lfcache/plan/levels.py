"""The noise levels that a plan is made over, and those that are computed in any case."""

from collections.abc import Sequence
from itertools import pairwise

SMALLEST = 3  # levels, with the one at which the run ends, for which there is something to plan


def levels_left(schedule: Sequence[float], sigma: float | None = None) -> list[float]:
    """The noise levels of the calls to plan, with the level at which the run ends.

    schedule: of the sampler. sigma: the noise level of the next call; None if it is the first. Returns an empty list
    if there are too few levels, or if they do not fall all the way.
    """
    levels = list(schedule)
    if sigma is not None:
        levels = [level for level in levels[:-1] if level <= sigma * 1.0001] + levels[-1:]
    falls = all(a > b for a, b in pairwise(levels))
    return levels if falls and len(levels) >= SMALLEST else []


def forced_levels(levels: Sequence[float], window: tuple[float, float], boundaries: Sequence[float]) -> list[int]:
    """Numbers of the levels to compute in any case.

    These are the levels outside of the window and the first inside, because predictions from outside are not kept, and
    the first after a boundary.

    levels: from `levels_left`. window, boundaries: as in LFCacheRun.
    """
    high, low = window
    forced = []
    for i, level in enumerate(levels[:-1]):
        before = levels[i - 1] if i else level
        is_outside = not (low <= level <= high and low <= before <= high)
        if is_outside or any(level <= b <= before for b in boundaries if before > level):
            forced.append(i)
    return forced
