"""What LFCache has to know of a model: how its input is made and how its answer is spelled."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Parametrization:
    """The arithmetic of one model.

    affine(sigma): 0-dim tensors (a, b) with denoised = a x + b prediction.
    space: how noise enters x (see `trial`); None where it does not.
    sigma_min: the smallest noise level that the model knows.
    patch: the model's patch over (T, H, W), below which no trial latent may shrink.
    """

    affine: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    space: str | None
    sigma_min: float = 0.0
    patch: tuple[int, int, int] = (1, 2, 2)

    def prediction(self, x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """The network's output after guidance, from its denoised answer, in x's dtype."""
        a, b = self.affine(sigma)
        return ((denoised - a * x) / b).to(x.dtype)

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor, *predictions: torch.Tensor) -> list[torch.Tensor]:
        """The denoised answers that these predictions stand for."""
        a, b = self.affine(sigma)
        return [a * x + b * prediction for prediction in predictions]
