"""The rehearsal: before the first call, the small latent is sampled over the whole schedule."""

from collections.abc import Sequence

import torch

from ..latent.parametrization import Parametrization
from ..latent.trial import VARIANCE_PRESERVING, Trial, make_trial, match_snr


class Rehearsal:
    """Samples a small latent with Euler steps and keeps the derivative at every call.

    Source: ours. Each call is a trial (see `make_trial`), so that all of them together cost what a trial before every
    call would. The path of the small latent is its own: it follows from the first latent alone.

    model: in derivatives (see `Parametrization.in_derivatives`). sigmas: the schedule, falling, with the level at
    which the run ends. factors: (r, s_h, s_w) from `fit_factors`. is_matched: whether the small latent is put back on
    the noise schedule.
    """

    def __init__(
        self, model: Parametrization, sigmas: Sequence[float], factors: tuple[int, int, int], is_matched: bool
    ) -> None:
        self.model = model
        self.sigmas = list(sigmas)
        self.factors = factors
        self.is_matched = is_matched
        self.derivatives: list[torch.Tensor] = []  # of the calls so far, at the full noise level
        self._levels: torch.Tensor | None = None
        self._trial: Trial | None = None

    def begin(self, x: torch.Tensor) -> Trial:
        """The first trial. x: the latent of the first call; not written to."""
        self._levels = torch.tensor(self.sigmas, dtype=torch.float32, device=x.device)
        model = self.model
        self._trial = make_trial(
            x, self._levels[0], self.factors, model.space, model.sigma_min, self.is_matched, model.patch
        )
        return self._trial

    def answer(self, denoised: torch.Tensor) -> Trial | None:
        """Take the model's denoised small latent of the last trial; returns the next trial, None after the last."""
        trial, levels, call = self._trial, self._levels, len(self.derivatives)
        assert trial is not None and levels is not None
        self.derivatives.append(trial.prediction(denoised, self.model.affine(levels[call])))
        if call + 2 == len(self.sigmas):
            self._trial = None
            return None
        small, scale = self._small(levels[call + 1])
        y = self._stretch(trial.sigma) * trial.x
        y = y + (y - denoised) / trial.sigma * (small - trial.sigma)
        x = (y / self._stretch(small)).to(trial.x.dtype)
        self._trial = Trial(x * scale, x, small, trial.factors, trial.patch, level=levels[call + 1])
        return self._trial

    def _small(self, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(noise level, scale) of the small latent at a level of the full one."""
        if not self.is_matched:
            return level, torch.ones_like(level)
        scale, small = match_snr(self.model.space, level, self.factors[0] * self.factors[1] * self.factors[2])
        return small.clamp(min=self.model.sigma_min), scale

    def _stretch(self, sigma: torch.Tensor) -> torch.Tensor | float:
        """What makes of x the coordinates in which derivatives move it (see `Parametrization.in_derivatives`)."""
        return (1 + sigma**2).sqrt() if self.model.space == VARIANCE_PRESERVING else 1.0
