"""Weights that are on the GPU only while they are needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .hooked import hook_names


def is_streamed(modules: Sequence[Any]) -> bool:
    """Whether each pass copies the weights to the GPU anew: sequential or group offloading."""
    if any("group_offloading" in name for name in hook_names(modules)):
        return True
    parts = (part for module in modules for part in module.modules())
    return any(_is_offloading(vars(part).get("_hf_hook")) for part in parts)


def _is_offloading(hook: Any) -> bool:
    """Whether a hook of accelerate brings a module's weights for each call and takes them away again."""
    return any(getattr(one, "offload", False) is True for one in getattr(hook, "hooks", (hook,)))


@contextmanager
def kept_in_place(modules: Sequence[Any]) -> Iterator[None]:
    """A context after which each module's weights are on the device on which they were before.

    A trial may call a transformer before its time; whole-model offloading then leaves it on the GPU, beside the other.
    """
    places = [(module, _place(module)) for module in modules]
    try:
        yield
    finally:
        for module, place in places:
            if place is not None and _place(module) != place:
                module.to(place)


def _place(module: Any) -> torch.device | None:
    return next((parameter.device for parameter in module.parameters()), None)
