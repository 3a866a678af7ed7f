"""Shrinking a latent for a trial (Eq. 4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def fit_factors(
    shape: Sequence[int], factor_t: int, factor_hw: int, patch: tuple[int, int, int] = (1, 2, 2)
) -> tuple[int, int, int]:
    """Reduce the factors until every side of the small latent holds at least one patch.

    shape: latent shape, (B, C, T, H, W) or (B, C, H, W); an image counts as one frame.
    factor_t, factor_hw: the factors wanted in time, and in height and width.
    patch: the model's patch over (T, H, W) in latent positions.
    Returns (r, s_h, s_w); (1, 1, 1) if nothing can be shrunk.
    Raises ValueError if the latent is neither 4-D nor 5-D.
    """
    if len(shape) not in (4, 5):
        raise ValueError(
            f"PreciseCache: a latent must have 4 or 5 dimensions, got {tuple(shape)}. "
            "LFCache works on image and video latents."
        )
    sides = (1, *shape[2:]) if len(shape) == 4 else tuple(shape[2:])
    wanted = (factor_t, factor_hw, factor_hw)
    t, h, w = (max(1, min(f, side // p)) for f, side, p in zip(wanted, sides, patch))
    return t, h, w


def shrink_latent(
    x: torch.Tensor, factors: tuple[int, int, int], patch: tuple[int, int, int] = (1, 1, 1)
) -> torch.Tensor:
    """Average-pool a latent over whole cells of `factors` = (r, s_h, s_w).

    Source: PreciseCache, Eq. 4. Ours: average pooling, and cropping to whole cells and
    patches. A partial cell at the edge would average fewer positions and keep more noise
    than the others, and some models take whole patches only.
    x: (B, C, T, H, W), or (B, C, H, W) with r = 1, any float dtype; not written to.
    patch: the model's patch over (T, H, W) in latent positions.
    Returns (B, C, T // r, H // s_h, W // s_w), or the same without T, cropped to whole
    patches, in x's dtype.
    """
    crop = tuple(
        slice(side - side % (f * p) or side)
        for side, f, p in zip(reversed(x.shape[2:]), reversed(factors), reversed(patch))
    )
    x = x[(..., *reversed(crop))]
    # float32 because some devices cannot pool half-precision videos
    if x.ndim == 4:
        return F.avg_pool2d(x.float(), factors[1:]).to(x.dtype)
    return F.avg_pool3d(x.float(), factors).to(x.dtype)
