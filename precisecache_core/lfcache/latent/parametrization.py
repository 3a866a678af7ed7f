"""What LFCache has to know about a model: how noise enters its input and what its output means."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Parametrization:
    """How one model's prediction, denoised latent and noise level are related.

    affine(sigma): 0-dim tensors (a, b) with denoised = a x + b prediction; sigma is 0-dim.
    space: FLOW, VARIANCE_EXPLODING or VARIANCE_PRESERVING (see `trial`); None if x is not data plus noise.
    sigma_min: the smallest noise level that the model was trained on.
    patch: the model's patch over (T, H, W) in latent positions; a trial's latent holds at least one.
    """

    affine: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    space: str | None
    sigma_min: float = 0.0
    patch: tuple[int, int, int] = (1, 2, 2)

    def prediction(self, x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """The guided prediction that gives this denoised latent, in x's shape and dtype."""
        a, b = self.affine(sigma)
        return ((denoised - a * x) / b).to(x.dtype)

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor, *predictions: torch.Tensor) -> list[torch.Tensor]:
        """The denoised latent of each prediction, in x's shape."""
        a, b = self.affine(sigma)
        return [a * x + b * prediction for prediction in predictions]
