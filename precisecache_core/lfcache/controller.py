"""The decision of Algorithm 1, compute this call or reuse, and which calls need a trial for it."""

import math

# A call is reused untried while the forecast of the error stays under this share of the threshold, ...
FORECAST_SHARE = 0.8
# ... and never farther from the last computed call than so many times the distance last tried.
FORECAST_REACH = 2


class LFCacheController:
    """State of one run's decisions. Numbers only; tensors are `LFCacheRun`'s business.

    Source: PreciseCache, Algorithm 1 and Section 4.1. `delta_max`: largest LFD of the
    warm-up; `threshold` = alpha * delta_max; `error`: LFD accumulated since the last
    computed call. Both are None until the warm-up has ended with a finite LFD.

    Ours: where the LFD's growth says that the error cannot be near the threshold yet, a
    call needs no trial (`needs_trial`, `skip_trial`). The next LFD settles what those
    calls added, as if it had grown evenly.

    delta_max: carried over from an earlier sampler, measured in the same way; replaces the warm-up
    (ours).
    """

    def __init__(
        self, alpha: float, warmup: int, try_every_call: bool = False, delta_max: float | None = None
    ) -> None:
        self.alpha = alpha
        self.warmup = warmup if delta_max is None else 0
        self.try_every_call = try_every_call
        self.calls = 0
        self.delta_max = delta_max
        self.smallest: float | None = None  # LFD that was held against the threshold
        self._restart()

    def _restart(self) -> None:
        """A call was computed: errors and distances count from it."""
        self.error = 0.0
        self.distance = 0  # calls since the computed one
        self.tried = 0  # distance of the last trial,
        self.lfd = 0.0  # its LFD,
        self.growth = 0.0  # and how much that had grown per call since the trial before

    def rescale(self, delta_max: float | None) -> float | None:
        """The LFDs to come are measured in another size, in which the warm-up's largest is `delta_max`.

        Returns by how much they are larger than those so far; None where `delta_max` or that is not known.
        """
        ratio = delta_max / self.delta_max if delta_max and self.delta_max else None
        for name in ("error", "lfd", "growth"):
            setattr(self, name, getattr(self, name) * (ratio or 0.0))
        self.smallest = None
        self.delta_max = delta_max
        return ratio

    @property
    def is_warmup(self) -> bool:
        return self.calls < self.warmup

    @property
    def threshold(self) -> float | None:
        if self.is_warmup or self.delta_max is None:
            return None
        return self.alpha * self.delta_max

    def decide(self, lfd: float | None) -> bool:
        """Take the next call's LFD (float, or None where none was measured); True means reuse.

        A missing or non-finite LFD computes.
        """
        self.distance += 1
        if lfd is not None and not math.isfinite(lfd):
            lfd = None
        threshold = self.threshold
        if self.is_warmup and lfd is not None:
            self.delta_max = max(lfd, self.delta_max or 0.0)
        self.calls += 1
        if threshold is not None and lfd is not None:
            untried = self.distance - self.tried - 1
            self.error += untried * (self.lfd + lfd) / 2 + lfd
            self.smallest = lfd if self.smallest is None else min(self.smallest, lfd)
            if self.error < threshold:
                self.growth = max(0.0, lfd - self.lfd) / (untried + 1)
                self.tried, self.lfd = self.distance, lfd
                return True
        self._restart()
        return False

    @property
    def needs_trial(self) -> bool:
        """Whether the next call's LFD is needed to decide; if not, it may be reused."""
        if self.try_every_call or self.threshold is None or self.distance + 1 > FORECAST_REACH * self.tried:
            return True
        untried = self.distance + 1 - self.tried
        forecast = self.error + untried * self.lfd + self.growth * untried * (untried + 1) / 2
        return not forecast < FORECAST_SHARE * self.threshold

    def skip_trial(self) -> None:
        """The next call is reused without a trial."""
        self.calls += 1
        self.distance += 1
