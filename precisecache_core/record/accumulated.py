"""The LFD that has accumulated, call by call, from what a report says."""

from collections.abc import Sequence

import numpy as np


def accumulated(lfd: Sequence[float | None], decisions: str) -> np.ndarray:
    """The LFD accumulated since the last computed call, as it stood after each call.

    lfd: the LFD of each call, None where none was measured. decisions: C or R for each call.
    A call without a trial counts as if the LFD had grown evenly between the trials around it.
    """
    total, out = 0.0, []
    for value, decision in zip(between_trials(lfd, decisions), decisions):
        total = total + value if decision == "R" else 0.0
        out.append(total)
    return np.array(out)


def between_trials(lfd: Sequence[float | None], decisions: str) -> list[float]:
    """The LFD of each call; the missing ones of reused calls lie evenly between their neighbours.

    The next LFD is measured from the last computed call, so that call counts as 0 for the calls after it.
    """
    filled, last, missing = [], 0.0, 0
    for value, decision in zip(lfd, decisions):
        if value is None and decision == "R":
            missing += 1
            filled.append(last)
            continue
        value = value or 0.0
        for j in range(missing):
            filled[j - missing] += (value - last) * (j + 1) / (missing + 1)
        filled.append(value)
        last, missing = value if decision == "R" else 0.0, 0
    return filled
