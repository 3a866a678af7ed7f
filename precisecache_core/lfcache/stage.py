"""Everything that belongs to latents of one signature (shape, dtype, device)."""

import math
from collections.abc import Collection, Sequence

import torch

from ..agreement import Agreement
from ..record.journal import CallRecord
from ..record.rank import rank_correlation
from .change import SOURCES, ComputedCalls, Source
from .config import LFCacheConfig
from .controller import LFCacheController
from .latent.frequency import LowBand
from .latent.parametrization import Parametrization
from .latent.shrink import fit_factors
from .plan.planner import Planner
from .plan.rehearsal import Rehearsal
from .predictions import Predictions


class Stage:
    """Decisions, predictions and the source of LFDs for latents of one signature.

    A latent with another signature begins a new stage.

    x: the first latent. delta_max: carried over from an earlier sampler; replaces the warm-up (see
        `controller`).
    may_try: False if this run makes no trials, whatever the latent's size. levels: of the sampler's steps, with the
        one at which the run ends, as far as they are known. schedule: those from this latent's on, if its calls are to
        be planned; forced: numbers of the levels that have to be computed. agreement: with the other ranks.
    """

    def __init__(
        self,
        config: LFCacheConfig,
        model: Parametrization,
        x: torch.Tensor,
        delta_max: float | None,
        may_try: bool,
        levels: Sequence[float] = (),
        schedule: Sequence[float] | None = None,
        forced: Collection[int] = (),
        agreement: Agreement | None = None,
    ) -> None:
        self.config = config
        self.agreement = agreement or Agreement()
        self.signature = (x.shape, x.dtype, x.device)
        self.controller = LFCacheController(config.alpha, config.warmup, config.try_every_call, delta_max)
        self._can_correct = model.is_derivative
        self._levels = levels
        self.forget_predictions()
        self.low_band = LowBand(config.cutoff)
        self.computed_calls = ComputedCalls(config, model, x.shape, self.low_band)
        source = SOURCES[config.trial]
        is_possible = may_try or not source.makes_trials
        self.obstacle = source.obstacle(config, model, x.shape) if is_possible else None
        self.source: Source = self.computed_calls
        if is_possible and self.obstacle is None:
            self.source = source(config, model, x.shape, self.low_band)
        self.planner = self._planner(model, x, schedule, forced) if schedule and config.share else None
        self.calls: list[CallRecord] = []
        self._unread: torch.Tensor | None = None  # true LFD of the last computed call
        self._agreement: list[tuple[float, torch.Tensor]] = []  # (LFD of the trial, true LFD) of computed calls

    def _planner(
        self, model: Parametrization, x: torch.Tensor, schedule: Sequence[float], forced: Collection[int]
    ) -> Planner:
        rehearsal, derivatives = None, model.in_derivatives()
        if self.source.makes_trials and derivatives is not None:
            factors = fit_factors(x.shape, self.config.factor_t, self.config.factor_hw, model.patch)
            rehearsal = Rehearsal(derivatives, schedule, factors, is_matched=self.config.trial == "snr_matched")
        budget = self.config.budget(len(schedule) - 1)
        return Planner(schedule, budget, forced, rehearsal, model.space, self.low_band, self.agreement)

    def matches(self, x: torch.Tensor) -> bool:
        """Whether x has this stage's shape, dtype and device."""
        return self.signature == (x.shape, x.dtype, x.device)

    def do_without_trials(self) -> None:
        """From now on extrapolate LFDs from the computed calls.

        A trial is smaller than a full call, so their LFDs differ in scale. The LFDs measured so far are
        rescaled, or dropped if the ratio is not known.
        """
        if self.source is self.computed_calls:
            return
        self.source = self.computed_calls
        if self.planner is not None and self.planner.plan is None:
            self.planner.plan_without_trials()
        if not self.calls or self.planner is not None:
            return
        largest = None if self.controller.is_warmup else self.agreement.largest(self.computed_calls.largest())
        ratio = self.controller.rescale(largest)
        for call in self.calls:
            call.lfd = None if call.lfd is None or ratio is None else call.lfd * ratio

    def read_level(self, sigma: torch.Tensor) -> tuple[float, bool]:
        """(noise level of a call, whether the last computed prediction was not finite), with one device read-back."""
        if self._unread is None:
            return sigma.float().item(), False
        level, true = torch.stack((sigma.to(self._unread.device, torch.float32), self._unread)).tolist()
        self._unread = None
        return level, not math.isfinite(true)

    def forget_predictions(self) -> None:
        """Drop the kept predictions: a prediction that is not finite spoils every trend made from it."""
        self.predictions = Predictions(self.config, self._can_correct, self._levels)

    def release(self) -> None:
        """Drop every prediction; further calls are computed."""
        self.forget_predictions()
        self.source = self.computed_calls

    def keep(
        self,
        x: torch.Tensor,
        sigma: float,
        lfd: float | None,
        prediction: torch.Tensor,
        uncond: torch.Tensor | None,
        trial: torch.Tensor | None,
        is_beyond_boundary: bool = False,
    ) -> list[torch.Tensor]:
        """Take a computed call: compare its prediction with the one before, and keep it.

        x: the noised latent, in the predictions' coordinates. sigma: its noise level. lfd: what `source`
        measured, or None. prediction, uncond: in x's shape; the caller must not write to them afterwards.
        trial: the trial's prediction at the full sigma, or None. is_beyond_boundary: whether a boundary lies
        before this call (see `LFCacheRun`).
        Returns what answers the call in place of prediction and uncond.
        """
        before = self.predictions.last
        if before is None:
            true_lfd = (prediction.float() * 0).sum()  # not a number if the prediction is not finite
        else:
            true_lfd = self.low_band.difference(prediction, before.to(prediction.device))
            if lfd is not None and (trial is not None or self.planner is not None):
                self._agreement.append((lfd, true_lfd))
        self._unread = true_lfd
        for source in {self.source, self.computed_calls}:
            source.keep(sigma, prediction, trial, true_lfd, before is None)
        if is_beyond_boundary:
            self.predictions.cross_boundary()
        return self.predictions.store(x, sigma, prediction, uncond)

    def trial_agreement(self, at_least: int = 4) -> float | None:
        """Spearman's rank correlation of the trials' LFDs with the true ones, in [-1, 1].

        None if there are fewer pairs than `at_least` (see `rank_correlation`).
        """
        true = torch.stack([t for _, t in self._agreement]).tolist() if self._agreement else []
        return rank_correlation([lfd for lfd, _ in self._agreement], true, at_least)
