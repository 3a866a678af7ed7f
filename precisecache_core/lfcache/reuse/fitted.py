"""Reuse `fitted`: the trend of the last two computed predictions, weighted by how well it held last time."""

import torch

from .base import Weight
from .taylor import Taylor


class Fitted(Taylor):
    """Like Taylor, but with the trend weighted between following it fully and following none.

    Source: ours. The gain g in [0, 1] is the weight that would have fitted the last computed call best.
    That call lay at a distance r (the reach); at a distance d the trend is weighted by g^(d/r).
    """

    name = "fitted"

    def __init__(self, cache_device: str = "model") -> None:
        super().__init__(cache_device)
        self.gain: torch.Tensor | None = None  # best weight of the last forecast, per sample
        self.reach = 0.0  # distance of the last forecast, in units of the distance between the calls it came from

    def store(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> None:
        if sigma != self.sigma and self.previous is not None:
            assert self.sigma is not None and self.previous_sigma is not None
            self.reach = (sigma - self.sigma) / (self.sigma - self.previous_sigma)
            self.gain = self._best_gain(prediction)
        super().store(x, sigma, prediction)

    def weights(self, sigma: float) -> list[Weight]:
        if self.previous is None or self.gain is None:
            return [1.0]
        distance = self._position(sigma) - 1
        weight = 1 + distance * self.gain ** abs(distance / self.reach)
        return [1 - weight, weight]

    def predict(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        if self.gain is None:
            assert self.current is not None
            return self.current.to(x.device)
        return super().predict(x, sigma)

    def _best_gain(self, prediction: torch.Tensor) -> torch.Tensor:
        """The gain g in [0, 1] that minimises |change - g forecast|, (B, 1, …) float32; stays on the call's device.

        Sums are made there wherever predictions are kept, so that the latent does not depend on it.
        """
        assert self.current is not None and self.previous is not None
        current, previous = self.current.to(prediction.device), self.previous.to(prediction.device)
        trend, change = (current - previous).float(), (prediction - current).float()
        axes = tuple(range(1, change.ndim))
        square = torch.linalg.vector_norm(trend, dim=axes, keepdim=True).square() * self.reach**2
        gain = (trend * change).sum(axes, True) * self.reach / square.clamp_min(1e-12)
        return gain.nan_to_num(0.0).clamp(0, 1)
