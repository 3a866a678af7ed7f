"""How the host's models relate prediction, denoised latent and noise level."""

from collections.abc import Callable
from typing import Any

import comfy.model_sampling as model_sampling
import torch

from ...precisecache_core.lfcache.latent.parametrization import Parametrization
from ...precisecache_core.lfcache.latent.trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING


def _classes(*names: str) -> tuple:
    """The host's sampling classes with these names; older hosts lack some."""
    return tuple(getattr(model_sampling, name) for name in names if hasattr(model_sampling, name))


# image-to-image predictors: x is not data plus noise, so there is no noise level to match
_NOISELESS = _classes("IMG_TO_IMG", "IMG_TO_IMG_FLOW")
_PRESERVING = _classes("V_PREDICTION_DDPM")
_EXPLODING = _classes("EPS", "COSMOS_RFLOW")


def parametrization_of(model: Any, sampling: Any) -> Parametrization:
    """The Parametrization of a host model.

    model: its BaseModel. sampling: its `model_sampling`, patched or not.
    """
    return Parametrization(affine_of(sampling), noise_space(sampling), float(sampling.sigma_min), patch_of(model))


def affine_of(sampling: Any) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """A function sigma -> (a, b), 0-dim tensors with denoised = a x + b prediction.

    Exact for every sampling class of the host, because `calculate_denoised` is affine in prediction and x:
    it is evaluated at (0, 1) and at (1, 0).
    """

    def affine(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
        return sampling.calculate_denoised(sigma, zero, one), sampling.calculate_denoised(sigma, one, zero)

    return affine


def noise_space(sampling: Any) -> str | None:
    """FLOW, VARIANCE_PRESERVING or VARIANCE_EXPLODING; None if x is not data plus noise, or is not known to be."""
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
    """The model's patch over (T, H, W) in latent positions; (1, 2, 2) if the model has no `patch_size`."""
    patch = getattr(getattr(model, "diffusion_model", None), "patch_size", None)
    if isinstance(patch, int):
        return (1, patch, patch)
    if isinstance(patch, (tuple, list)) and len(patch) in (2, 3) and all(isinstance(p, int) for p in patch):
        t, h, w = (1, *patch)[-3:]
        return t, h, w
    return (1, 2, 2)


def part_of_schedule(sampling: Any, sigmas: torch.Tensor) -> float:
    """How much of the noise schedule a run covers, in [0, 1]. sigmas: of its steps, falling, with the last level."""
    if len(sigmas) < 2 or not hasattr(sampling, "percent_to_sigma"):
        return 1.0
    covered = _percent(sampling, float(sigmas[-1])) - _percent(sampling, float(sigmas[0]))
    return max(0.0, round(covered, 4))  # so that a whole schedule is exactly 1


def _percent(sampling: Any, sigma: float) -> float:
    """The share of the noise schedule that lies before this noise level: the inverse of `percent_to_sigma`."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if sampling.percent_to_sigma(middle) > sigma:
            low = middle
        else:
            high = middle
    return high


def sigma_window(sampling: Any, start_percent: float, end_percent: float) -> tuple[float, float]:
    """(high, low): the noise levels of a part of the schedule; start 0 and end 1 set no limit."""
    high = sampling.percent_to_sigma(start_percent) if start_percent > 0 else float("inf")
    low = sampling.percent_to_sigma(end_percent) if end_percent < 1 else 0.0
    return float(high), float(low)
