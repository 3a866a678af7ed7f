"""LFDs without a trial, extrapolated from the computed calls."""

import math

import torch

from ..latent.frequency import LowBand
from ..latent.parametrization import Parametrization
from .base import Reading, Settings, Source


class ComputedCalls(Source):
    """Estimates LFDs from the growth of the true LFD per unit of sigma.

    Source: ours, for runs in which no trial can be made. The true LFD between two computed calls is
    known, and its growth per unit of sigma changes slowly.
    """

    def __init__(self, config: Settings, model: Parametrization, shape: torch.Size, low_band: LowBand) -> None:
        super().__init__(config, model, shape, low_band)
        self.limit = config.warmup - 1  # how many true LFDs are kept for `largest`: those of the warm-up
        self.sigma: float | None = None  # of the last computed call
        self._lfds: list[torch.Tensor] = []
        self._unread: tuple[torch.Tensor, float] | None = None  # the last true LFD and its distance in sigma
        self._growth: float | None = None  # LFD per unit of sigma

    def read(self, sigma: torch.Tensor, trial: torch.Tensor | None, is_warmup: bool) -> Reading:
        """As in `Source`, with one more device read-back after every computed call."""
        level = sigma.item()
        if is_warmup:
            return Reading(level, None)
        lfd = self._at(level)
        return Reading(level, lfd, is_spoilt=lfd is not None and not math.isfinite(lfd))

    def keep(
        self, sigma: float, prediction: torch.Tensor, trial: torch.Tensor | None, true_lfd: torch.Tensor, is_first: bool
    ) -> None:
        self._unread = None
        if not is_first and self.sigma is not None:
            gap = abs(sigma - self.sigma)
            self._unread = true_lfd, gap
            # a second call at the same sigma (heun, sa_solver) says nothing about growth
            if gap and len(self._lfds) < self.limit:
                self._lfds.append(true_lfd)
        self.sigma = sigma

    def _at(self, sigma: float) -> float | None:
        """LFD of a call at sigma to the last computed one; None if it is not known.

        Not finite if the last computed prediction was not.
        """
        if self._unread is not None:
            (lfd, gap), self._unread = self._unread, None
            value = float(lfd)
            if not math.isfinite(value):
                self._growth = None
                return value
            if gap:
                self._growth = value / gap
        if self._growth is None or self.sigma is None:
            return None
        return self._growth * abs(sigma - self.sigma)

    def largest(self) -> float | None:
        known = [lfd for lfd in map(float, self._lfds) if math.isfinite(lfd)]
        return max(known, default=None)
