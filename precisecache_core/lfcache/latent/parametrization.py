"""What LFCache has to know about a model: how noise enters its input and what its output means."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .trial import VARIANCE_PRESERVING


@dataclass(frozen=True)
class Parametrization:
    """How one model's prediction, denoised latent and noise level are related.

    affine(sigma): 0-dim tensors (a, b) with denoised = a x + b prediction; sigma is 0-dim.
    space: FLOW, VARIANCE_EXPLODING or VARIANCE_PRESERVING (see `trial`); None if x is not data plus noise.
    sigma_min: the smallest noise level that the model was trained on.
    patch: the model's patch over (T, H, W) in latent positions; a trial's latent holds at least one.
    is_derivative: whether the prediction is the derivative (see `in_derivatives`).
    """

    affine: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    space: str | None
    sigma_min: float = 0.0
    patch: tuple[int, int, int] = (1, 2, 2)
    is_derivative: bool = False

    def in_derivatives(self) -> "Parametrization | None":
        """The same model with the derivative d in place of its prediction; None if x is not data plus noise.

        d = (y - denoised) / sigma is what a sampler moves y by, per unit of sigma. y is x, or x sqrt(1 + sigma^2)
        where the model preserves the variance. d is the prediction itself for flow and eps models.
        """
        if self.space is None:
            return None
        preserves = self.space == VARIANCE_PRESERVING

        def affine(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (1 + sigma**2).sqrt() if preserves else torch.ones_like(sigma), -sigma

        return replace(self, affine=affine, is_derivative=True)

    def position(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """y of `in_derivatives`, in x's shape; x itself if the prediction is no derivative."""
        return self.affine(sigma)[0] * x if self.is_derivative and self.space == VARIANCE_PRESERVING else x

    def prediction(self, x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """The guided prediction that gives this denoised latent, in x's shape and dtype."""
        a, b = self.affine(sigma)
        return ((denoised - a * x) / b).to(x.dtype)

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor, *predictions: torch.Tensor) -> list[torch.Tensor]:
        """The denoised latent of each prediction, in x's shape."""
        a, b = self.affine(sigma)
        return [a * x + b * prediction for prediction in predictions]
