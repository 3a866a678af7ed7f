"""Reasons not to use LFCache, or its trials, in a run."""

from typing import Any

import comfy.model_base
import torch

from ...precisecache_core.lfcache.config import LFCacheConfig
from ...precisecache_core.lfcache.latent.parametrization import Parametrization
from .other_cache import OtherCache


def reason_to_stand_aside(guider: Any) -> str | None:
    """Why LFCache must compute every call of this guider's run, or None."""
    if (other := OtherCache.of(guider)) is not None:
        name = "EasyCache or LazyCache" if other.name != "TeaCache" else other.name
        return f"{name} is on the same model, and two step caches spoil each other"
    return None


def reason_against_trials(
    config: LFCacheConfig, model: Any, parametrization: Parametrization, denoise_mask: Any, latent_shapes: Any
) -> str | None:
    """Why a small latent would say nothing about this run, or None.

    model: the host's BaseModel. denoise_mask, latent_shapes: arguments of the guider's `outer_sample`.
    """
    if latent_shapes is not None and len(latent_shapes) > 1:
        return "packed latents (audio and video) cannot be shrunk"
    if parametrization.space is None and config.trial == "snr_matched":
        return "this model's input is not noise plus data"
    keeps_clean = type(model).scale_latent_inpaint is not comfy.model_base.BaseModel.scale_latent_inpaint
    if isinstance(denoise_mask, torch.Tensor) and keeps_clean:
        return "this model keeps clean frames inside the noised latent"
    return None
