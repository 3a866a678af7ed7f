"""The Low-Frequency Difference without a trial, from the calls that were computed."""

import math


class LFDExtrapolation:
    """The LFD of the coming calls, as if it grew with the noise level as it did before.

    Source: ours, for runs in which no trial can be made. Between two computed calls the true
    LFD is known; per unit of sigma it changes slowly.

    first: so many of the LFDs are kept, for `largest`.
    """

    def __init__(self, first):
        self.first = first
        self.sigma = None
        self._lfds = []  # the first true LFDs between computed calls, 0-dim tensors
        self._unread = None  # the last of them, and the distance in sigma that it spans
        self._growth = None  # LFD per unit of sigma

    def store(self, sigma, lfd):
        """A call was computed at sigma, a float; lfd: to the one before, a 0-dim tensor or None."""
        self._unread = None
        if lfd is not None:
            gap = abs(sigma - self.sigma)
            self._unread = lfd, gap
            # a second call at the same sigma (heun, sa_solver) says nothing about growth
            if gap and len(self._lfds) < self.first:
                self._lfds.append(lfd)
        self.sigma = sigma

    def at(self, sigma):
        """LFD of a call at sigma to the last computed one, or None where it cannot be told.

        Not finite after a computed call that was not. Reads the device once for every
        computed call.
        """
        if self._unread is not None:
            (lfd, gap), self._unread = self._unread, None
            lfd = float(lfd)
            if not math.isfinite(lfd):
                self._growth = None
                return lfd
            if gap:
                self._growth = lfd / gap
        if self._growth is None:
            return None
        return self._growth * abs(sigma - self.sigma)

    def largest(self):
        """Largest finite one of the first LFDs, or None."""
        known = [lfd for lfd in map(float, self._lfds) if math.isfinite(lfd)]
        return max(known, default=None)
