"""Forwards of the host's full-size models, counted on the meta device, each only once."""

from functools import cache

import torch

from benchmarks.meter import count
from precisecache_core.lfcache.latent.shrink import fit_factors, shrink_latent
from testkit.full_size import build, layered


@cache
def model_of(name, layers=None):
    """The model on the meta device, with `layers` blocks, or with its own number of them."""
    return build(name, **({} if layers is None else layered(name, layers)))


@cache
def counted(name, latent, rows, layers=None):
    """The Count of one forward."""
    return count(model_of(name, layers), name, latent, rows)


def small_latent(name, latent, factor_t, factor_hw):
    """(C, T, H, W) of a trial's latent, from the pack's own code on the meta device."""
    from PreciseCache.nodes.host.parametrization import patch_of

    patch = patch_of(model_of(name))
    x = torch.empty(1, *latent, device="meta")
    return tuple(shrink_latent(x, fit_factors(x.shape, factor_t, factor_hw, patch), patch).shape[1:])
