"""The host's `denoised` and the method's prediction: two spellings of one answer."""

from collections.abc import Callable
from typing import Any

import comfy.model_sampling as model_sampling
import torch

from ...precisecache_core.lfcache.parametrization import Parametrization
from ...precisecache_core.lfcache.trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING


def _classes(*names: str) -> tuple:
    """The host's sampling classes of these names; older hosts lack some."""
    return tuple(getattr(model_sampling, name) for name in names if hasattr(model_sampling, name))


# image-to-image predictors: x is not data plus noise, so there is no noise level to match
_NOISELESS = _classes("IMG_TO_IMG", "IMG_TO_IMG_FLOW")
_PRESERVING = _classes("V_PREDICTION_DDPM")
_EXPLODING = _classes("EPS", "COSMOS_RFLOW")


def parametrization_of(model: Any, sampling: Any) -> Parametrization:
    """The arithmetic of the host's model under this sampling."""
    return Parametrization(affine_of(sampling), noise_space(sampling), float(sampling.sigma_min), patch_of(model))


def affine_of(sampling: Any) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """A function sigma -> (a, b), 0-dim tensors with denoised = a x + b prediction.

    Exact for every sampling class of the host, because each is affine in both: the host's own
    `calculate_denoised` is evaluated at (0, 1) and (1, 0).
    """

    def affine(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
        return sampling.calculate_denoised(sigma, zero, one), sampling.calculate_denoised(sigma, one, zero)

    return affine


def noise_space(sampling: Any) -> str | None:
    """How noise enters x under the host's sampling, or None where it does not."""
    if isinstance(sampling, _NOISELESS):
        return None
    if isinstance(sampling, model_sampling.CONST):
        return FLOW
    if isinstance(sampling, _PRESERVING):
        return VARIANCE_PRESERVING
    if isinstance(sampling, _EXPLODING):
        return VARIANCE_EXPLODING
    return None


def patch_of(model: Any) -> tuple[int, int, int]:
    """The model's patch over (T, H, W) in latent positions; 1, 2, 2 where it does not say."""
    patch = getattr(getattr(model, "diffusion_model", None), "patch_size", None)
    if isinstance(patch, int):
        return (1, patch, patch)
    if isinstance(patch, (tuple, list)) and len(patch) in (2, 3) and all(isinstance(p, int) for p in patch):
        t, h, w = (1, *patch)[-3:]
        return t, h, w
    return (1, 2, 2)


def sigma_window(sampling: Any, start_percent: float, end_percent: float) -> tuple[float, float]:
    """(high, low) noise levels of a part of the schedule, open at 0 and 1."""
    high = sampling.percent_to_sigma(start_percent) if start_percent > 0 else float("inf")
    low = sampling.percent_to_sigma(end_percent) if end_percent < 1 else 0.0
    return float(high), float(low)
