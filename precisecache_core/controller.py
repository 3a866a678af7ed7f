"""The decision of Algorithm 1: compute this call or reuse."""

import math


class LFCacheController:
    """State of one run's decisions. Numbers only; tensors are `LFCacheRun`'s business.

    Source: PreciseCache, Algorithm 1 and Section 4.1. `delta_max`: largest LFD of the
    warm-up; `threshold` = alpha * delta_max; `error`: LFD accumulated since the last
    computed call. Both are None until the warm-up has ended with a finite LFD.
    """

    def __init__(self, alpha, warmup):
        self.alpha = alpha
        self.warmup = warmup
        self.calls = 0
        self.error = 0.0
        self.delta_max = None

    @property
    def is_warmup(self):
        return self.calls < self.warmup

    @property
    def threshold(self):
        if self.is_warmup or self.delta_max is None:
            return None
        return self.alpha * self.delta_max

    def decide(self, lfd):
        """Take the next call's LFD (float, or None where none was measured); True means reuse.

        A missing or non-finite LFD computes.
        """
        is_known = lfd is not None and math.isfinite(lfd)
        threshold = self.threshold
        if self.is_warmup and is_known:
            self.delta_max = max(lfd, self.delta_max or 0.0)
        self.calls += 1
        if threshold is not None and is_known:
            self.error += lfd
            if self.error < threshold:
                return True
        self.error = 0.0
        return False
