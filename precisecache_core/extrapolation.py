"""The Low-Frequency Difference without a trial, from the calls that were computed."""

import math


class LFDExtrapolation:
    """The LFD of the coming calls, as if it grew with the noise level as it did before.

    Source: ours, for runs in which no trial can be made. Between two computed calls the true
    LFD is known; per unit of sigma it changes slowly. It cannot foresee what a trial sees,
    so calls beyond a `boundary` are not foretold.

    boundaries: noise levels at which something else than the latent changes (the range of a
        prompt, a keyframe of a LoRA).
    """

    def __init__(self, boundaries=()):
        self.boundaries = boundaries
        self.sigma = None
        self._lfds = []  # true LFDs between computed calls, 0-dim tensors until somebody asks
        self._gap = None  # in sigma, that the last of them spans

    def store(self, sigma, lfd):
        """A call was computed at sigma, a float; lfd: to the one before, a 0-dim tensor or None."""
        # a second call at the same sigma (heun, sa_solver) says nothing about growth
        if lfd is not None and sigma != self.sigma:
            self._lfds.append(lfd)
            self._gap = abs(sigma - self.sigma)
        self.sigma = sigma

    def at(self, sigma):
        """LFD of a call at sigma to the last computed one, or None where it cannot be told.

        Reads the device once for every computed call.
        """
        if not self._lfds:
            return None
        low, high = sorted((sigma, self.sigma))
        if any(low <= b <= high for b in self.boundaries) and low < high:
            return None
        self._lfds[-1] = float(self._lfds[-1])
        return self._lfds[-1] * (high - low) / self._gap

    def largest(self, count):
        """Largest finite one of the first `count` LFDs, or None."""
        known = [lfd for lfd in map(float, self._lfds[:count]) if math.isfinite(lfd)]
        return max(known, default=None)
