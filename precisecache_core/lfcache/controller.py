"""The decision of Algorithm 1, to compute a call or to reuse, and which calls need a trial for it."""

import math

# A call needs no trial while the forecast error stays under this share of the threshold ...
FORECAST_SHARE = 0.8
# ... and its distance from the last computed call is at most this many times that of the last trial.
FORECAST_REACH = 2


class LFCacheController:
    """The decisions of one stage and the numbers behind them; it holds no tensors.

    Source: PreciseCache, Algorithm 1 and Section 4.1. `delta_max` is the largest LFD of the
    warm-up, `threshold` is alpha * delta_max, and `error` is the LFD accumulated since the
    last computed call. `threshold` is None until the warm-up has ended with a finite LFD.

    Ours: a call needs no trial (`needs_trial`, `skip_trial`) while the growth of the LFD shows
    that the error is not near the threshold yet. The next trial corrects the error: the calls
    without a trial are counted as if the LFD had grown evenly over them.

    alpha, warmup, try_every_call: as in LFCacheConfig.
    delta_max: carried over from an earlier sampler, measured in the same way; replaces the
        warm-up (ours).
    """

    def __init__(self, alpha: float, warmup: int, try_every_call: bool = False, delta_max: float | None = None) -> None:
        self.alpha = alpha
        self.warmup = warmup if delta_max is None else 0
        self.try_every_call = try_every_call
        self.calls = 0
        self.delta_max = delta_max
        self.smallest: float | None = None  # smallest LFD compared with the threshold
        self._restart()

    def _restart(self) -> None:
        """A call was computed: error and distance are counted from it."""
        self.error = 0.0
        self.distance = 0  # calls since the computed one
        self.tried = 0  # distance of the last trial
        self.lfd = 0.0  # LFD of the last trial
        self.growth = 0.0  # growth of the LFD per call between the last two trials

    def rescale(self, delta_max: float | None) -> float | None:
        """Convert to the LFDs of another latent size: from now on they are measured in that size.

        delta_max: the warm-up's largest LFD in the new size, or None if it is not known.
        Returns the ratio of new LFDs to old ones, or None if either delta_max is not known.
        """
        ratio = delta_max / self.delta_max if delta_max and self.delta_max else None
        for name in ("error", "lfd", "growth"):
            setattr(self, name, getattr(self, name) * (ratio or 0.0))
        self.smallest = None
        self.delta_max = delta_max
        return ratio

    @property
    def is_warmup(self) -> bool:
        """Whether the next call belongs to the warm-up."""
        return self.calls < self.warmup

    @property
    def threshold(self) -> float | None:
        """What `error` must stay below; None while it is not known."""
        if self.is_warmup or self.delta_max is None:
            return None
        return self.alpha * self.delta_max

    def decide(self, lfd: float | None) -> bool:
        """Decide the next call; True means reuse.

        lfd: the call's LFD; None if none was measured. Without a finite LFD the call is computed.
        """
        if lfd is not None and not math.isfinite(lfd):
            lfd = None
        is_reused = self.would_reuse(lfd)
        threshold = self.threshold
        if self.is_warmup and lfd is not None:
            self.delta_max = max(lfd, self.delta_max or 0.0)
        self.calls += 1
        if threshold is not None and lfd is not None:
            self.smallest = lfd if self.smallest is None else min(self.smallest, lfd)
        if not is_reused or lfd is None:
            self._restart()
            return False
        untried = self.distance - self.tried
        self.error = self._error_with(lfd)
        self.distance += 1
        self.growth = max(0.0, lfd - self.lfd) / (untried + 1)
        self.tried, self.lfd = self.distance, lfd
        return True

    def would_reuse(self, lfd: float | None) -> bool:
        """What `decide` would decide; changes nothing."""
        threshold = self.threshold
        return threshold is not None and lfd is not None and self._error_with(lfd) < threshold

    def _error_with(self, lfd: float) -> float:
        """`error` once the next call has this LFD."""
        untried = self.distance - self.tried
        return self.error + untried * (self.lfd + lfd) / 2 + lfd

    @property
    def needs_trial(self) -> bool:
        """Whether the next call needs a trial; if not, it can be reused without one."""
        if self.try_every_call or self.threshold is None or self.distance + 1 > FORECAST_REACH * self.tried:
            return True
        untried = self.distance + 1 - self.tried
        forecast = self.error + untried * self.lfd + self.growth * untried * (untried + 1) / 2
        return not forecast < FORECAST_SHARE * self.threshold

    def skip_trial(self) -> None:
        """Count the next call as reused without a trial."""
        self.calls += 1
        self.distance += 1
