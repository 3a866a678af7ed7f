"""Reuse `fitted`: the trend of the last two computed predictions, as far as it held the last time."""

import torch

from .taylor import Taylor


class Fitted(Taylor, name="fitted"):
    """`taylor` times a gain, because a trend that did not hold does more harm than none.

    Source: ours. The gain is what would have been right for the last computed call, and what it
    lacks to 1 grows with distance: if a share g of the forecast came true over a reach r, the
    forecast over a distance d counts g^(d/r).
    """

    def __init__(self, cache_device: str = "model") -> None:
        super().__init__(cache_device)
        self.gain: torch.Tensor | None = None  # how much of the last forecast came true, per sample,
        self.reach = 0.0  # and how far it reached, in steps of the trend it came from

    def store(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> None:
        prediction = self._held(prediction)
        if sigma != self.sigma and self.previous is not None:
            assert self.sigma is not None and self.previous_sigma is not None
            self.reach = (sigma - self.sigma) / (self.sigma - self.previous_sigma)
            self.gain = self._share_come_true(prediction)
        super().store(x, sigma, prediction)

    def predict(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        assert self.current is not None
        current = self.current.to(x.device)
        if self.previous is None or self.gain is None:
            return current
        distance = self._position(sigma) - 1
        weight = (1 + distance * self.gain ** abs(distance / self.reach)).to(x.device, current.dtype)
        return torch.lerp(self.previous.to(x.device), current, weight)

    def _share_come_true(self, prediction: torch.Tensor) -> torch.Tensor:
        """The gain g in [0, 1] with the smallest |change - g forecast|, (B, 1, …); stays on the device."""
        assert self.current is not None and self.previous is not None
        forecast = (self.current - self.previous).float() * self.reach
        change = (prediction - self.current).float()
        axes = tuple(range(1, change.ndim))
        gain = (forecast * change).sum(axes, True) / forecast.square().sum(axes, True).clamp_min(1e-12)
        return gain.nan_to_num(0.0).clamp(0, 1)
