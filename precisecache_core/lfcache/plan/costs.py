"""What it costs to reuse every call between two computed ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..latent.trial import FLOW

Levels = TypeVar("Levels", float, np.ndarray)

# How much the displacement of x until the next computed call counts, beside what correction leaves of it. Found on the
# two models of the benchmarks; 0.1 and 1 do nearly as well.
DISPLACEMENT = 0.3
# How much more than by its sum the last gap counts, in which nothing is taken back. Found in the same way: 1 is better
# with uni_pc and few calls, 4 with euler.
ENDING = 2.0


@dataclass(frozen=True)
class Profile:
    """How fast derivatives change with the noise level, where nothing was measured.

    Source: ours, from uncached runs and rehearsals of the two models of the benchmarks. Over the schedule they move as
    signal^-power - late noise^-power does; the squared change over a distance is the distance to the power of
    `growth`. floor keeps the ends of the schedule finite.
    """

    power: float
    late: float
    growth: float
    floor: float

    def gram(self, levels: np.ndarray) -> np.ndarray:
        """What stands for the inner products of the derivatives, (N, N), at N noise levels of a flow model.

        They are not inner products, but where the weights of the derivatives add up to 0 they do as well.
        """
        signal, noise = 1 + self.floor - levels, levels + self.floor
        place = signal**-self.power - self.late * noise**-self.power
        return -(np.abs(place[:, None] - place[None]) ** self.growth) / 2


# Both were fitted to the two models of the benchmarks. `python3 run.py bench plan_costs` fits them again: it finds 0.33
# and 0.18 for `late`, and nearly these values for the others.
FULL = Profile(power=1.03, late=0.41, growth=1.74, floor=0.039)
# in a rehearsal: the small latent lacks fine detail, which changes late
SMALL = Profile(power=0.67, late=0.19, growth=1.85, floor=0.008)
# how much the rehearsal counts against what is expected: 0 not at all, 1 fully
CONFIDENCE = 0.75


def measured_costs(gram: np.ndarray, sigmas: Sequence[float], space: str | None) -> np.ndarray:
    """The cost of each gap, from the derivatives at every call of the schedule.

    Source: ours. The reused calls between the computed calls p and j displace x by the sum over them of
    step_k (d_p - d_k), which is taken back once j is known; the sum of step_k (line_k - d_k) is left, where line
    interpolates between d_p and d_j (see `reuse.corrector`). Both are linear in the derivatives, so that
    inner products of those suffice. After the last computed call nothing is taken back.

    gram: (N, N), inner products of the derivatives of the N calls; any common shift of the derivatives is allowed.
    sigmas: N + 1 noise levels, falling; the last is where the run ends. space: of the model (see `Parametrization`).
    Returns (N, N + 1) float64, [p, j]: the squared error if j is the next computed call after p (N: if there is
        none), infinite for j <= p.
    """
    levels = np.asarray(sigmas, dtype=np.float64)
    count = len(levels) - 1
    step = np.diff(levels)
    # rows: the derivatives, then their sums over the steps before each call; `products` are of all of these
    sums = np.tril(np.ones((count + 1, count)), -1) * step
    rows = np.concatenate([np.eye(count), sums])
    products = rows @ gram @ rows.T
    total, moment = sums.sum(1), (sums * levels[:-1]).sum(1)
    costs = np.full((count, count + 1), np.inf)
    for p in range(count):
        j = np.arange(p + 1, count + 1)
        reach = total[j] - total[p + 1]
        ends, start = count + j, count + p + 1

        def squared(a: np.ndarray, b: np.ndarray | float, other: np.ndarray) -> np.ndarray:
            """Squared norm of a d_p + b d_other - sum_j + sum_(p+1)."""
            return (
                a * a * products[p, p]
                + b * b * products[other, other]
                + products[ends, ends]
                + products[start, start]
                + 2 * a * b * products[p, other]
                - 2 * a * (products[p, ends] - products[p, start])
                - 2 * b * (products[other, ends] - products[other, start])
                - 2 * products[ends, start]
            ).clip(min=0)

        displaced = squared(reach, 0.0, j.clip(max=count - 1))
        share = (moment[j] - moment[p + 1] - levels[p] * reach) / (levels[j] - levels[p])
        left = squared(reach - share, share, j.clip(max=count - 1))
        error = np.where(j < count, left + DISPLACEMENT * displaced, ENDING * displaced)
        costs[p, j] = error * weight((levels[p] + levels[j]) / 2, space)
    return costs


def expected_costs(sigmas: Sequence[float], space: str | None, profile: Profile = FULL) -> np.ndarray:
    """The cost of each gap where nothing was measured; arguments and shapes as in `measured_costs`."""
    levels = np.asarray(sigmas, dtype=np.float64)
    if space != FLOW and (space is not None or levels[0] > 1):
        levels = levels / (1 + levels)  # of the same latent in a flow model
    return measured_costs(profile.gram(levels[:-1]), levels.tolist(), FLOW)


def rehearsed_costs(
    gram: np.ndarray,
    sigmas: Sequence[float],
    space: str | None,
    profiles: tuple[Profile, Profile] = (FULL, SMALL),
    confidence: float = CONFIDENCE,
) -> np.ndarray:
    """The cost of each gap of the full latent, from the derivatives of the small one; as in `measured_costs`.

    Source: ours. What is expected of the full latent, times a power of how far the rehearsal departs from what is
    expected of a rehearsal.
    """
    full, small = (expected_costs(sigmas, space, profile) for profile in profiles)
    measured = measured_costs(gram, sigmas, space)
    is_gap = np.isfinite(full)
    ratio = (measured[is_gap] + _tiny(measured[is_gap])) / (small[is_gap] + _tiny(small[is_gap]))
    full[is_gap] *= ratio**confidence
    return full


def _tiny(costs: np.ndarray) -> float:
    """What is nothing beside these costs."""
    return 1e-9 * float(costs.max()) + 1e-300


def weight(sigma: Levels, space: str | None) -> Levels:
    """How much a squared error in x at these noise levels counts in the result, as if it stayed in the video."""
    return (1.01 - sigma) ** -2 if space == FLOW else 1 + 0 * sigma
