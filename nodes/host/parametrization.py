"""The host's `denoised` and the method's prediction: two spellings of one answer."""

import comfy.model_sampling as model_sampling
import torch

from ...precisecache_core.lfcache.trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING


def _classes(*names):
    """The host's sampling classes of these names; older hosts lack some."""
    return tuple(getattr(model_sampling, name) for name in names if hasattr(model_sampling, name))


# image-to-image predictors: x is not data plus noise, so there is no noise level to match
_NOISELESS = _classes("IMG_TO_IMG", "IMG_TO_IMG_FLOW")
_PRESERVING = _classes("V_PREDICTION_DDPM")
_EXPLODING = _classes("EPS", "COSMOS_RFLOW")


def affine_of(sampling):
    """A function sigma -> (a, b), 0-dim tensors with denoised = a x + b prediction.

    Exact for every sampling class of the host, because each is affine in both: the
    host's own `calculate_denoised` is evaluated at (0, 1) and (1, 0).
    """
    def affine(sigma):
        zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
        return sampling.calculate_denoised(sigma, zero, one), sampling.calculate_denoised(sigma, one, zero)

    return affine


def noise_space(sampling):
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


def sigma_window(sampling, start_percent, end_percent):
    """(high, low) noise levels of a part of the schedule, open at 0 and 1."""
    high = sampling.percent_to_sigma(start_percent) if start_percent > 0 else float("inf")
    low = sampling.percent_to_sigma(end_percent) if end_percent < 1 else 0.0
    return float(high), float(low)
