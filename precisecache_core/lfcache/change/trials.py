"""LFDs measured by trials: before a call, the model runs on a small latent."""

import math

import torch

from ..latent.frequency import LowBand
from ..latent.parametrization import Parametrization
from ..latent.shrink import fit_factors, shrink_latent
from ..latent.trial import Trial, make_trial
from .base import Reading, Settings, Source

# after this many trials in a row without a finite LFD, no more are made
FAULTS = 3


class Trials(Source):
    """The LFD between a trial and the trial, or the shrunk prediction, of the last computed call.

    Source: PreciseCache, Eq. 2-4 and Algorithm 1. Ours: the small latent is put back on the noise schedule.
    """

    name = "snr_matched"

    makes_trials = True
    snr_matched = True

    @classmethod
    def obstacle(cls, config: Settings, model: Parametrization, shape: torch.Size) -> str | None:
        if len(shape) not in (4, 5):
            return f"a latent of {len(shape)} dimensions cannot be shrunk"
        if config.factor_t == config.factor_hw == 1:
            return "factor_t and factor_hw are 1"
        if fit_factors(shape, config.factor_t, config.factor_hw, model.patch) == (1, 1, 1):
            return f"a latent of {tuple(shape)} is too small to shrink"
        return None

    def __init__(self, config: Settings, model: Parametrization, shape: torch.Size, low_band: LowBand) -> None:
        super().__init__(config, model, shape, low_band)
        self.model = model
        self.compares_trials = config.reference == "trial"
        self.factors = fit_factors(shape, config.factor_t, config.factor_hw, model.patch)
        self._reference: torch.Tensor | None = None  # what the next trial is compared with
        self._true_lfd: torch.Tensor | None = None  # of the last computed call
        self._faults = 0

    def trial(self, x: torch.Tensor, sigma: torch.Tensor) -> Trial | None:
        return make_trial(
            x, sigma, self.factors, self.model.space, self.model.sigma_min, self.snr_matched, self.model.patch
        )

    def read(self, sigma: torch.Tensor, trial: torch.Tensor | None, is_warmup: bool) -> Reading:
        """As in `Source`; the true LFD shows whether the last prediction was finite, a trial does not."""
        if trial is None or self._reference is None or self._true_lfd is None:
            return Reading(sigma.float().item(), None)
        measured = self.low_band.difference(trial, self._reference)
        level, lfd, true = torch.stack(
            (sigma.to(measured.device, torch.float32), measured, self._true_lfd.to(measured.device))
        ).tolist()
        if not math.isfinite(true):
            return Reading(level, true, is_spoilt=True)
        self._faults = 0 if math.isfinite(lfd) else self._faults + 1
        return Reading(level, lfd)

    def keep(
        self, sigma: float, prediction: torch.Tensor, trial: torch.Tensor | None, true_lfd: torch.Tensor, is_first: bool
    ) -> None:
        self._true_lfd = true_lfd
        if trial is None or self.compares_trials:
            self._reference = trial
        else:
            self._reference = shrink_latent(prediction, self.factors, self.model.patch)

    @property
    def obstacle_met(self) -> str | None:
        if self._faults < FAULTS:
            return None
        return f"{FAULTS} trials in a row, or the predictions they are compared with, were not finite"


class PlainTrials(Trials):
    """Trials at the sigma of the call itself. Source: PreciseCache, Eq. 4."""

    name = "plain"

    snr_matched = False
