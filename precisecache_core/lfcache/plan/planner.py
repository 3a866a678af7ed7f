"""Makes the plan of one stage: with a rehearsal where the model can run on a small latent, otherwise without."""

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch

from ...agreement import Agreement
from ..latent.frequency import LowBand
from ..latent.trial import Trial
from .costs import expected_costs, rehearsed_costs
from .plan import Plan
from .rehearsal import Rehearsal


class Planner:
    """Plans which calls to compute before the first of them.

    The caller runs the model on each trial, from `begin` on, and gives its answers to `answer`. After the last one it
    calls `conclude`; from then on, or after `plan_without_trials`, `plan` is there.

    schedule: the noise levels, falling, with the level at which the run ends. budget: how many of them to compute.
    forced: numbers of the levels that have to be computed. rehearsal: None if the model cannot run on small latents.
    space: of the model. low_band: measures LFDs. agreement: with the other ranks, which plan alike.
    """

    def __init__(
        self,
        schedule: Sequence[float],
        budget: int,
        forced: Collection[int],
        rehearsal: Rehearsal | None,
        space: str | None,
        low_band: LowBand,
        agreement: Agreement,
    ) -> None:
        self.schedule = list(schedule)
        self.budget = budget
        self.forced = forced
        self.rehearsal = rehearsal
        self.space = space
        self.low_band = low_band
        self.agreement = agreement
        self.plan: Plan | None = None
        self._low: np.ndarray | None = None  # inner products of the rehearsed low bands
        self._answers = 0  # to trials
        if rehearsal is None:
            self.plan_without_trials()

    def begin(self, x: torch.Tensor) -> Trial | None:
        """The first trial; None if there is a plan already. x: the latent of the first call."""
        return None if self.plan is not None or self.rehearsal is None else self.rehearsal.begin(x)

    def answer(self, denoised: torch.Tensor | None) -> Trial | None:
        """Take the denoised small latent of the last trial, None if it failed.

        Returns the next trial; None after the last, and after one that failed.
        """
        self._answers += 1
        if denoised is None or self.rehearsal is None:
            return None
        return self.rehearsal.answer(denoised)

    @property
    def is_over(self) -> bool:
        """Whether every trial of the rehearsal has been answered."""
        return self._answers == len(self.schedule) - 1

    def plan_without_trials(self) -> None:
        """Plan by what is usual, because no rehearsal can be made."""
        self.rehearsal = None
        self._make(expected_costs(self.schedule, self.space))

    @property
    def is_rehearsed(self) -> bool:
        """Whether the plan follows from a rehearsal."""
        return self._low is not None

    def lfd(self, sigma: float) -> float | None:
        """The rehearsed LFD of a call at this noise level to the last computed one; None if it is not known."""
        if self._low is None or self.plan is None or not self.plan.computed:
            return None
        low, now, last = self._low, self.plan.level(sigma), self.plan.computed[-1]
        return math.sqrt(max(0.0, low[now, now] - 2 * low[now, last] + low[last, last]))

    def entry(self) -> dict | None:
        """The plan and what became of it, for the report; None if none was made."""
        plan = self.plan
        if plan is None:
            return None
        return {
            "steps": len(plan.sigmas),
            "budget": plan.budget,
            "forced": len(plan.forced),
            "computed": len(plan.computed),
            "unplanned": plan.unplanned,
            "is_rehearsed": self.is_rehearsed,
        }

    def remark(self) -> str | None:
        """Why more steps were computed than planned, or None."""
        plan = self.plan
        if plan is None or len(plan.computed) <= plan.budget:
            return None
        allows = f"the settings allow {plan.budget} of {len(plan.sigmas)} steps"
        if plan.unplanned:
            return f"{allows}, but {len(plan.computed)} were computed: some could not be reused"
        return f"{allows}, but {len(plan.computed)} have to be computed (the first ones, and those outside the window)"

    def conclude(self) -> None:
        """Plan by the rehearsal, which is over; without it if it failed on a rank. Reads the device once."""
        data = None
        try:
            data = self._products()
        finally:  # the other ranks wait for an answer, also after an error
            agreed = self.agreement.common(data)
        if self.plan is not None:  # trials were given up meanwhile
            return
        if agreed is None:
            return self.plan_without_trials()
        steps = len(self.schedule) - 1
        both = np.frombuffer(agreed).reshape(2, steps, steps)
        self._low = both[1]
        self._make(rehearsed_costs(both[0], self.schedule, self.space))

    def _products(self) -> bytes | None:
        """Inner products of the rehearsed derivatives and of their low bands, (2, N, N) float64; None if not finite."""
        rehearsal, self.rehearsal = self.rehearsal, None
        if rehearsal is None or len(rehearsal.derivatives) + 1 < len(self.schedule):
            return None
        stacked = torch.stack(rehearsal.derivatives).float()
        stacked = stacked - stacked.mean(0)  # a common shift changes no cost, and float32 is exact near 0
        rows = stacked.flatten(1)
        low = self.low_band.coefficients(stacked).flatten(1)
        both = torch.stack((rows @ rows.T, low @ low.T)).cpu().double().numpy()
        return both.tobytes() if np.isfinite(both).all() else None

    def _make(self, costs: np.ndarray) -> None:
        self.plan = Plan(self.schedule[:-1], self.budget, self.forced, costs)
