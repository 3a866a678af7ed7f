"""The trial: the small latent that the model runs on, and what its output means for the full latent."""

from dataclasses import dataclass
from math import prod, sqrt

import torch

from .shrink import shrink_latent

# How x is made of data z and noise n at noise level sigma.
FLOW = "flow"  # x = (1 - sigma) z + sigma n
VARIANCE_EXPLODING = "variance_exploding"  # x = z + sigma n
VARIANCE_PRESERVING = "variance_preserving"  # x = (z + sigma n) / sqrt(1 + sigma^2)


def match_snr(space: str | None, sigma: torch.Tensor, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise level and scale of a pooled latent on the noise schedule.

    Source: ours. Pooling over `positions` keeps the video and divides the noise by sqrt(positions).
    space: FLOW, VARIANCE_EXPLODING or VARIANCE_PRESERVING.
    sigma: noise level of the full latent, a tensor of any shape in the space's own units.
    positions: how many latent positions one pooled cell averages.
    Returns (scale, sigma_small), tensors like sigma: the model runs on pooled / scale at sigma_small.
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
    raise ValueError(
        f"PreciseCache: unknown noise space {space!r}. Use FLOW, VARIANCE_EXPLODING or VARIANCE_PRESERVING."
    )


@dataclass(frozen=True)
class Trial:
    """A small latent ready for the model.

    pooled: the pooled latent, not scaled.
    x, sigma: the input of the model; sigma is 0-dim.
    factors, patch: how the latent was shrunk, so that conditioning can be shrunk in the same way
        (see `make_trial`).
    level: the noise level of the full latent that the trial stands for, 0-dim; None if it is that of the call.
    """

    pooled: torch.Tensor
    x: torch.Tensor
    sigma: torch.Tensor
    factors: tuple[int, int, int] = (1, 1, 1)
    patch: tuple[int, int, int] = (1, 1, 1)
    level: torch.Tensor | None = None

    def prediction(self, denoised: torch.Tensor, affine: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The trial's prediction at the full sigma, in the shape of `pooled`.

        Source: ours. Trials at different sigmas can be compared only if all use the full sigma.
        denoised: the model's denoised small latent. affine: (a, b) of the *full* sigma, with
            denoised = a x + b prediction.
        """
        a, b = affine
        return (denoised - a * self.pooled) / b


def make_trial(
    x: torch.Tensor,
    sigma: torch.Tensor,
    factors: tuple[int, int, int],
    space: str | None,
    sigma_min: float,
    snr_matched: bool,
    patch: tuple[int, int, int] = (1, 1, 1),
) -> Trial:
    """Shrink x and, if `snr_matched`, put it back on the noise schedule.

    x: (B, C, T, H, W) or (B, C, H, W), any float dtype; not written to. sigma: its noise level, 0-dim.
    factors: (r, s_h, s_w) from `fit_factors`.
    space, sigma_min: of the model (see `Parametrization`); the trial's sigma is at least sigma_min.
    patch: the model's patch over (T, H, W); the small latent is cropped to whole patches.
    Raises ValueError on an unknown space if `snr_matched`.
    """
    pooled = shrink_latent(x, factors, patch)
    if not snr_matched:
        return Trial(pooled, pooled, sigma, factors, patch)
    scale, sigma_small = match_snr(space, sigma, prod(factors))
    # the model was not trained below sigma_min, and at sigma_min pooled / scale is as good an input
    return Trial(pooled, pooled / scale, sigma_small.clamp(min=sigma_min), factors, patch)
