"""The trial inference: what the model is shown, and what its answer stands for."""

from dataclasses import dataclass
from math import prod, sqrt

import torch

from .shrink import shrink_latent

# How x is made of data z and noise n at noise level sigma.
FLOW = "flow"  # x = (1 - sigma) z + sigma n
VARIANCE_EXPLODING = "variance_exploding"  # x = z + sigma n
VARIANCE_PRESERVING = "variance_preserving"  # x = (z + sigma n) / sqrt(1 + sigma^2)


def match_snr(space: str | None, sigma: torch.Tensor, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where on the noise schedule a latent lands whose noise was averaged over `positions`.

    Source: ours. Pooling keeps the video and divides the noise by sqrt(positions).
    space: FLOW, VARIANCE_EXPLODING or VARIANCE_PRESERVING.
    sigma: noise level of the full latent, a tensor (any shape) in the space's own units.
    Returns (scale, sigma_small), tensors like sigma: the model is to see
        pooled / scale at sigma_small.
    Raises ValueError on an unknown space.
    """
    shrunk = sigma / sqrt(positions)
    if space == FLOW:
        scale = (1 - sigma) + shrunk
        return scale, shrunk / scale
    if space == VARIANCE_EXPLODING:
        return torch.ones_like(sigma), shrunk
    if space == VARIANCE_PRESERVING:
        signal = 1 / (1 + sigma**2)
        return (signal + (1 - signal) / positions).sqrt(), shrunk
    raise ValueError(f"PreciseCache: unknown noise space {space!r}. Use FLOW, VARIANCE_EXPLODING "
                     "or VARIANCE_PRESERVING.")


@dataclass(frozen=True)
class Trial:
    """A small latent ready for the model.

    pooled: the pooled latent, as it stands for x at the full sigma.
    x, sigma: what the model is shown; sigma is 0-dim.
    factors, patch: how it was shrunk, for conditioning that has to follow (see `make_trial`).
    """

    pooled: torch.Tensor
    x: torch.Tensor
    sigma: torch.Tensor
    factors: tuple[int, int, int] = (1, 1, 1)
    patch: tuple[int, int, int] = (1, 1, 1)

    def prediction(self, denoised: torch.Tensor, affine: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The trial's prediction at the full sigma, from its denoised small latent.

        Source: ours. affine: (a, b) of the *full* sigma, denoised = a x + b prediction, so that trials
        of different sigmas are compared in one space.
        """
        a, b = affine
        return (denoised - a * self.pooled) / b


def make_trial(
    x: torch.Tensor, sigma: torch.Tensor, factors: tuple[int, int, int], space: str | None, sigma_min: float,
    is_snr_matched: bool, patch: tuple[int, int, int] = (1, 1, 1)
) -> Trial:
    """Shrink x, and put it back on the noise schedule if `is_snr_matched`.

    x: (B, C, T, H, W) or (B, C, H, W); sigma: 0-dim tensor; factors from `fit_factors`;
    sigma_min: smallest noise level the model knows, where the trial's sigma is clamped;
    patch: the model's patch over (T, H, W), of which the small latent holds whole ones.
    """
    pooled = shrink_latent(x, factors, patch)
    if not is_snr_matched:
        return Trial(pooled, pooled, sigma, factors, patch)
    scale, sigma_small = match_snr(space, sigma, prod(factors))
    # below sigma_min the model was never trained; at sigma_min pooled / scale is as good
    return Trial(pooled, pooled / scale, sigma_small.clamp(min=sigma_min), factors, patch)
