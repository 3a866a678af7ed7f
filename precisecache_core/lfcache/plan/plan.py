"""The plan: which calls of a schedule are computed, for a given number of them."""

from bisect import bisect_right
from collections.abc import Collection, Sequence

import numpy as np

from ...record.journal import Reason

# calls at the start that are always computed: the fewest that give a trend
FIRST = 2
# calls that are computed at least: with fewer, nothing is ever corrected
FEWEST = 3
# two noise levels that differ by less than this share are the same
TOLERANCE = 1e-4


def best_calls(costs: np.ndarray, last: int, computed: int, forced: Collection[int] = ()) -> list[int]:
    """The calls after `last` to compute so that the costs of all gaps add up to the least.

    costs: (N, N + 1), see `costs`. last: the last computed call, or -1 for none, which makes call 0 the first.
    computed: how many calls to compute; more if `forced` needs more, fewer if not that many are left.
    forced: calls that have to be computed. Returns them in order.
    """
    count = len(costs)
    if last < 0:
        return [0, *best_calls(costs, 0, computed - 1, forced)] if count else []
    needed = sorted(call for call in forced if last < call < count)
    computed = min(max(computed, len(needed)), count - 1 - last)
    # no gap may contain a forced call
    allowed = costs.copy()
    for call in needed:
        allowed[:call, call + 1 :] = np.inf
    best, paths = allowed[:, count].copy(), []  # cost from p to the end with the calls that are left
    for _ in range(computed):
        through = allowed[:, :count] + best[None]
        paths.append(through.argmin(1))
        best = through.min(1)
    found, at = [], last
    for choice in reversed(paths):
        at = int(choice[at])
        found.append(at)
    return found


class Plan:
    """Follows a schedule: which of its levels are computed.

    A level is a noise level of the schedule. Samplers that make several calls a step make them at a level or between
    two; these belong to the level above. A level is computed or reused as a whole. What has to be computed although
    it was not planned is taken from the calls that are left.

    sigmas: the noise levels of the schedule, falling, without the last, where the run ends.
    budget: how many levels to compute; at least FEWEST are. forced: levels that have to be computed.
    costs: (N, N + 1), see `costs`.
    """

    def __init__(self, sigmas: Sequence[float], budget: int, forced: Collection[int], costs: np.ndarray) -> None:
        self.sigmas = list(sigmas)
        self._rising = [-level for level in sigmas]
        self.forced = {*range(min(FIRST, len(self.sigmas))), *forced}
        self.budget = budget
        self.costs = costs
        self.planned = best_calls(costs, -1, max(self.budget, FEWEST), self.forced)
        self.computed: list[int] = []
        self.unplanned = 0  # levels that were computed although they were not planned

    def level(self, sigma: float) -> int:
        """The level that a call at this noise level belongs to."""
        return max(0, bisect_right(self._rising, -sigma * (1 - TOLERANCE)) - 1)

    def computes(self, sigma: float) -> bool:
        """Whether the plan computes a call at this noise level."""
        return self.level(sigma) in self.planned

    def reason(self, sigma: float) -> str:
        """Why a call at this noise level is computed."""
        level = self.level(sigma)
        if level in self.forced:
            return Reason.WARMUP
        return Reason.PLANNED if level in self.planned else Reason.UNPLANNED

    def note_computed(self, sigma: float) -> None:
        """A call at this noise level was computed; if that was not planned, plan the rest anew."""
        level = self.level(sigma)
        if self.computed and level <= self.computed[-1]:
            return
        self.computed.append(level)
        if level not in self.planned:
            self.unplanned += 1
            rest = best_calls(self.costs, level, self.budget - len(self.computed), self.forced)
            self.planned = [*self.computed, *rest]
