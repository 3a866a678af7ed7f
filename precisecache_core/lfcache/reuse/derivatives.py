"""Computed calls, answered calls, and sums of derivatives: what the corrector works with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

# the weight of a kept derivative in an answer: one number, or one per sample as (B, 1, ...)
Weight = float | torch.Tensor


@dataclass(frozen=True)
class Node:
    """A computed call: its noise level and the derivative of each stream, in x's shape."""

    sigma: float
    derivatives: Sequence[torch.Tensor]


@dataclass
class Step:
    """One answered call and how the sampler used it: it moved x by the sum over streams of amount * derivative.

    rows: for each stream the weights of the last kept derivatives in the answer, newest last; None if the call was
    computed. shift: how much of the displacement the answer hands back per unit of sigma. amounts: known as soon
    as the next call begins.
    """

    sigma: float
    streams: int
    rows: Sequence[Sequence[Weight]] | None
    shift: float
    amounts: tuple[float, ...] = field(default=())


def combine(
    weights: Sequence[Weight], tensors: Sequence[torch.Tensor], start: torch.Tensor | None = None
) -> torch.Tensor | None:
    """start + the sum of weight * tensor in float32, on the device of the last tensor.

    start: float32, on that device; written to. None if it is not given and every weight is 0.
    """
    device, total = tensors[-1].device, start
    for weight, tensor in zip(weights, tensors):
        if isinstance(weight, float) and weight == 0.0:
            continue
        term = tensor.to(device).float()
        if isinstance(weight, torch.Tensor):
            weight = weight.to(device)
        if total is None:
            total = weight * term
        elif isinstance(weight, torch.Tensor):
            total.addcmul_(term, weight)
        else:
            total.add_(term, alpha=weight)
    return total
