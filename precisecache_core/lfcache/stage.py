"""Everything that belongs to one latent signature; another signature begins another stage."""

import torch

from ..record.journal import CallRecord
from ..record.rank import rank_correlation
from .change import SOURCES, ComputedCalls, Source
from .config import LFCacheConfig
from .controller import LFCacheController
from .frequency import LowBand
from .parametrization import Parametrization
from .predictions import Predictions


class Stage:
    """Decisions, predictions and the source of LFDs for latents of one shape, dtype and device.

    delta_max: carried over from an earlier sampler; replaces the warm-up (see `controller`).
    may_try: whether a trial makes sense at all in this run, whatever the latent's size.
    """

    def __init__(self, config: LFCacheConfig, model: Parametrization, x: torch.Tensor, delta_max: float | None,
                 may_try: bool) -> None:
        self.config = config
        self.signature = (x.shape, x.dtype, x.device)
        self.controller = LFCacheController(config.alpha, config.warmup, config.try_every_call, delta_max)
        self.predictions = Predictions(config)
        self.low_band = LowBand(config.cutoff)
        self.computed_calls = ComputedCalls(config, model, x.shape, self.low_band)
        source = SOURCES[config.trial]
        is_possible = may_try or not source.makes_trials
        self.obstacle = source.obstacle(config, model, x.shape) if is_possible else None
        self.source: Source = self.computed_calls
        if is_possible and self.obstacle is None:
            self.source = source(config, model, x.shape, self.low_band)
        self.calls: list[CallRecord] = []
        self._agreement: list[tuple[float, torch.Tensor]] = []  # a trial's LFD and the true one

    def matches(self, x: torch.Tensor) -> bool:
        """Whether x has this stage's shape, dtype and device."""
        return self.signature == (x.shape, x.dtype, x.device)

    def do_without_trials(self) -> None:
        """From now on tell LFDs from the computed calls.

        Trials and whole calls differ in size, and so do their LFDs: those measured so far are rescaled,
        or dropped where the ratio is not known.
        """
        if self.source is self.computed_calls:
            return
        self.source = self.computed_calls
        if not self.calls:
            return
        largest = None if self.controller.is_warmup else self.computed_calls.largest()
        ratio = self.controller.rescale(largest)
        for call in self.calls:
            call.lfd = None if call.lfd is None or ratio is None else call.lfd * ratio

    def forget_predictions(self) -> None:
        """Predictions that are not finite spoil every trend through them: begin with the next."""
        self.predictions = Predictions(self.config)

    def release(self) -> None:
        """Let go of every prediction; further calls are computed."""
        self.forget_predictions()
        self.source = self.computed_calls

    def keep(self, x: torch.Tensor, sigma: float, lfd: float | None, prediction: torch.Tensor,
             uncond: torch.Tensor | None, trial: torch.Tensor | None) -> None:
        """A call was computed: compare its prediction with the one before, and hold it.

        lfd: what `source` told of the call; trial: the trial's prediction, where one was made.
        """
        before = self.predictions.last
        if before is None:
            true_lfd = (prediction.float() * 0).sum()  # says at least whether the prediction is finite
        else:
            true_lfd = self.low_band.difference(prediction, before.to(prediction.device))
            if lfd is not None and trial is not None:
                self._agreement.append((lfd, true_lfd))
        for source in {self.source, self.computed_calls}:
            source.keep(sigma, prediction, trial, true_lfd, before is None)
        self.predictions.store(x, sigma, prediction, uncond)

    @property
    def trial_agreement(self) -> float | None:
        """Spearman correlation of the trials' LFDs with the true ones; None under four pairs."""
        true = torch.stack([t for _, t in self._agreement]).tolist() if self._agreement else []
        return rank_correlation([lfd for lfd, _ in self._agreement], true)
