"""What stands in for a call that is not computed (Section 4.3, Table 4)."""

import torch


class PredictionCache:
    """Predictions of the last computed calls of one run, and their reuse.

    `prediction` and `residual` hold one tensor, `fitted` and `taylor` two. Stored tensors
    are ours: nobody else holds them, nothing is written to them.
    """

    def __init__(self, reuse, cache_device="model"):
        self.reuse = reuse
        self.cache_device = cache_device
        self.sigma = None
        self.current = None
        self.previous_sigma = None
        self.previous = None
        self.gain = None  # of `fitted`: how much of the last forecast came true,
        self.reach = None  # and how far it reached, in steps of the trend it came from

    @property
    def cache_bytes(self):
        return sum(t.nbytes for t in (self.current, self.previous) if t is not None)

    def matches(self, x):
        """True if the cached prediction can stand for a call on x."""
        return self.current is not None and (self.current.shape, self.current.dtype) == (x.shape, x.dtype)

    def store(self, x, sigma, prediction):
        """Keep a computed prediction; `prediction` is handed over and not used elsewhere.

        x: the noised latent it was computed for; sigma: its noise level, a float.
        """
        if self.reuse == "residual":
            prediction = prediction - x
        if self.cache_device == "cpu":
            prediction = prediction.cpu()
        # a second call at the same sigma (heun, sa_solver) refines it and gives no slope
        if self.reuse in ("fitted", "taylor") and sigma != self.sigma:
            if self.reuse == "fitted" and self.previous is not None:
                self.gain = self._fit(prediction, sigma)
            self.previous_sigma, self.previous = self.sigma, self.current
        self.sigma, self.current = sigma, prediction

    def predict(self, x, sigma):
        """The stand-in prediction for x at sigma (a float), in x's shape and on x's device.

        Source: PreciseCache, Section 4.3. `taylor`: first order over sigma, through the
        last two computed predictions; the paper's TaylorSeer row extrapolates features.
        `fitted` (ours): the same times a gain, because a trend that did not hold does more
        harm than none. The gain is what would have been right for the last computed call,
        and what it lacks to 1 grows with distance: a share g that came true over a reach r
        leaves g^(d/r) over a distance d.
        """
        current = self.current.to(x.device)
        if self.reuse == "residual":
            return current + x
        if self.reuse == "prediction" or self.previous is None:
            return current
        weight = (sigma - self.previous_sigma) / (self.sigma - self.previous_sigma)
        if self.reuse == "fitted":
            if self.gain is None:
                return current
            distance = weight - 1  # in the steps that `reach` counts
            weight = (1 + distance * self.gain ** abs(distance / self.reach)).to(x.device, current.dtype)
        return torch.lerp(self.previous.to(x.device), current, weight)

    def _fit(self, prediction, sigma):
        """Share of the forecast change that really came, in [0, 1]: one number per sample, (B, 1, …).

        Least squares: the gain g with the smallest |change - g forecast|. Stays on the device.
        """
        self.reach = (sigma - self.sigma) / (self.sigma - self.previous_sigma)
        forecast = (self.current - self.previous).float() * self.reach
        change = (prediction - self.current).float()
        axes = tuple(range(1, change.ndim))
        gain = (forecast * change).sum(axes, True) / forecast.square().sum(axes, True).clamp_min(1e-12)
        return gain.nan_to_num(0.0).clamp(0, 1)
