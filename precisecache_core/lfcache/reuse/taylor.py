"""Reuse `taylor`: the trend of the last two computed predictions."""

import torch

from .base import Reuse, Weight


class Taylor(Reuse):
    """First-order extrapolation over sigma from the last two computed predictions.

    Source: PreciseCache, Table 4. Its TaylorSeer row extrapolates features; this extrapolates the prediction.
    """

    name = "taylor"

    def __init__(self, cache_device: str = "model") -> None:
        super().__init__(cache_device)
        self.previous_sigma: float | None = None
        self.previous: torch.Tensor | None = None

    @property
    def tensors(self) -> list[torch.Tensor | None]:
        return [self.current, self.previous]

    def store(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> None:
        # a second call at the same sigma (heun, sa_solver) refines the first one and gives no slope
        if sigma != self.sigma:
            self.previous_sigma, self.previous = self.sigma, self.current
        super().store(x, sigma, prediction)

    def predict(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        assert self.current is not None
        current = self.current.to(x.device)
        if self.previous is None:
            return current
        weight = self.weights(sigma)[-1]
        if isinstance(weight, torch.Tensor):
            weight = weight.to(x.device, current.dtype)
        return torch.lerp(self.previous.to(x.device), current, weight)

    def weights(self, sigma: float) -> list[Weight]:
        """The weights of the kept predictions at sigma, newest last; they add up to 1."""
        if self.previous is None:
            return [1.0]
        weight = self._position(sigma)
        return [1 - weight, weight]

    def _position(self, sigma: float) -> float:
        """Where sigma lies on the line through the last two computed calls: 0 at the first, 1 at the second."""
        assert self.sigma is not None and self.previous_sigma is not None
        return (sigma - self.previous_sigma) / (self.sigma - self.previous_sigma)
