"""Where in the schedule calls may be reused: between which noise levels, and across which none."""

import math
from collections.abc import Sequence

WHOLE_SCHEDULE = (math.inf, 0.0)


def crosses(boundaries: Sequence[float], sigma: float, last: float) -> bool:
    """Whether a boundary lies between two noise levels, or at one of them."""
    low, high = sorted((sigma, last))
    return low < high and any(low <= boundary <= high for boundary in boundaries)


def is_inside(window: tuple[float, float], sigma: float) -> bool:
    """Whether a noise level lies in a window (high, low)."""
    high, low = window
    return low <= sigma <= high
