"""Conditioning for a trial: conditioning in the shape of the latent is shrunk with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ...precisecache_core.lfcache.latent.shrink import shrink_latent

Cells = tuple[int, int, int]  # factors or patch over (T, H, W)

# conditioning that is a latent of its own size
_LATENT_KEYS = ("reference_latent", "reference_latents", "ref_latents", "ref_latent", "time_dim_concat")
# conditioning whose length or contents refer to frames of the full latent
_FRAME_KEYS = ("audio_embed", "keyframe_idxs", "guide_attention_entries", "generated_keyframes")
# left out of a trial, because they need the full size or the true sigma
_LEFT_OUT = ("control", "control_apply_to_uncond", "gligen", "timestep_start", "timestep_end")


class UnshrinkableConditioning(Exception):
    """Conditioning that cannot be shrunk with the latent; the message names it."""


def shrink_conds(
    conds: Mapping[str, Any], shape: torch.Size, small_shape: torch.Size, factors: Cells, patch: Cells
) -> dict[str, list[dict]]:
    """Copies of a guider's processed conds for a latent of `small_shape`.

    conds: {"positive": [cond, …], …} after the host's `process_conds`; not written to.
    shape, small_shape: of the full and the small latent. factors: (r, s_h, s_w).
    patch: the model's patch over (T, H, W).
    Gates by noise level and ControlNets stay; `open_gates` removes them.
    Raises UnshrinkableConditioning if a cond cannot be shrunk.
    """
    return {
        kind: [shrink_cond(c, shape, small_shape, factors, patch) for c in group or ()] for kind, group in conds.items()
    }


def shrink_cond(cond: dict, shape: torch.Size, small_shape: torch.Size, factors: Cells, patch: Cells) -> dict:
    """A copy of one cond for the small latent, which shares the values that do not change.

    Arguments and errors as in `shrink_conds`.
    """
    if cond.get("hooks") is not None:
        raise UnshrinkableConditioning("conditioning with LoRA hooks")
    small = dict(cond)
    if cond.get("area") is not None:
        small["area"] = shrink_area(cond["area"], small_shape, factors)
    if cond.get("mask") is not None:
        small["mask"] = shrink_mask(cond["mask"], small_shape)
    small["model_conds"] = {
        name: shrink_model_cond(name, value, shape, small_shape, factors, patch)
        for name, value in cond["model_conds"].items()
    }
    return small


def open_gates(conds: Mapping[str, list[dict]], sigma: float) -> dict[str, list[dict]]:
    """The conds that are active at sigma (a float), without their gates and ControlNets.

    A trial may run at a different sigma than its call, so its conds are chosen here by the sigma of
    the call.
    """

    def is_active(cond: dict) -> bool:
        return cond.get("timestep_end", 0.0) <= sigma <= cond.get("timestep_start", float("inf"))

    return {
        kind: [{k: v for k, v in c.items() if k not in _LEFT_OUT} for c in group if is_active(c)]
        for kind, group in conds.items()
    }


def has_gates(conds: Mapping[str, list[dict]]) -> bool:
    """Whether any of the conds is active in only a part of the schedule."""
    return any("timestep_start" in c or "timestep_end" in c for group in conds.values() for c in group)


def boundaries_of(conds_by_name: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """The noise levels at which a prompt, LoRA keyframe or ControlNet begins or ends, ascending.

    conds_by_name: {attribute: conds}, as from `conds_of`.
    """
    levels: set = set()
    for cond in (c for conds in conds_by_name.values() for group in conds.values() for c in group or ()):
        levels |= {cond[key] for key in ("timestep_start", "timestep_end") if key in cond}
        for hook in getattr(cond.get("hooks"), "hooks", ()):
            levels |= {keyframe.start_t for keyframe in hook.hook_keyframe.keyframes}
        control = cond.get("control")
        while control is not None:
            levels |= set(control.timestep_range or ())
            control = control.previous_controlnet
    return sorted(float(level) for level in levels)


def shrink_area(area: Sequence[int], small_shape: torch.Size, factors: Cells) -> Any:
    """An area in positions of the small latent.

    area: sizes over the last axes, then offsets over the same axes, in positions of the full latent.
    """
    axes = len(area) // 2
    pairs = zip(area[:axes], area[axes:], factors[-axes:], small_shape[-axes:])
    sizes: list[int] = []
    offsets: list[int] = []
    for size, offset, factor, side in pairs:
        offset = min(offset // factor, side - 1)
        sizes.append(max(1, min(-(-size // factor), side - offset)))
        offsets.append(offset)
    return type(area)(sizes + offsets)  # type: ignore[call-arg]


def shrink_model_cond(
    name: str, value: Any, shape: torch.Size, small_shape: torch.Size, factors: Cells, patch: Cells
) -> Any:
    """One model cond for the small latent; the value itself if it does not depend on the size.

    name: its key in `model_conds`. value: the host's COND object. Other arguments and errors as in
    `shrink_conds`.
    """
    cond = getattr(value, "cond", None)
    if isinstance(cond, torch.Tensor):
        if cond.ndim == len(shape) and cond.shape[2:] == shape[2:]:
            return value._copy_with(shrink_latent(cond, factors, patch))
        if name == "vace_context" and cond.shape[3:] == shape[2:]:
            flat = shrink_latent(cond.flatten(0, 1), factors, patch)
            return value._copy_with(flat.unflatten(0, cond.shape[:2]))
        if name in _LATENT_KEYS and cond.ndim in (4, 5):
            return value._copy_with(shrink_loose(cond, factors, patch))
    if name in _LATENT_KEYS and isinstance(cond, (list, tuple)):
        return value._copy_with([shrink_loose(c, factors, patch) for c in cond])
    # conditioning with a size of its own may depend on the full latent in a way that only the model knows
    has_extent = any(
        isinstance(c, torch.Tensor) and c.ndim > 3 for c in (cond if isinstance(cond, (list, tuple)) else [cond])
    )
    if has_extent or name in _FRAME_KEYS or type(value).__name__ == "CONDNoiseShape":
        extent = f" of shape {tuple(cond.shape)}" if isinstance(cond, torch.Tensor) else ""
        raise UnshrinkableConditioning(f"conditioning {name!r}{extent}")
    return value


def shrink_loose(latent: torch.Tensor, factors: Cells, patch: Cells) -> torch.Tensor:
    """Shrink the height and width of a latent that has its own size; the number of frames stays.

    latent: (B, C, T, H, W) or (B, C, H, W).
    """
    height, width = latent.shape[-2:]
    s_h, s_w = (max(1, min(f, side // p)) for f, side, p in zip(factors[1:], (height, width), patch[1:]))
    return shrink_latent(latent, (1, s_h, s_w), patch)


def shrink_mask(mask: torch.Tensor, small_shape: torch.Size) -> torch.Tensor:
    """Average a mask, (B, H, W) or (B, T, H, W), over the cells of the small latent; keeps the dtype."""
    pool: Any = F.adaptive_avg_pool2d if mask.ndim == 3 else F.adaptive_avg_pool3d
    return pool(mask[:, None].float(), small_shape[1 - mask.ndim :])[:, 0].to(mask.dtype)
