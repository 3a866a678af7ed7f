"""Which blocks are pivotal, and which neighbours can be skipped as one (Eq. 5)."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import torch


def smallest_norms(passes: Sequence[Sequence[torch.Tensor]], cache_rate: float) -> set[int]:
    """The positions of the blocks to skip, from what the passes of one call measured.

    passes: per pass one 0-dim score per block, in the model's order: the squared norm of its residual.
    Reads the device once per pass, because passes may have run on different devices.
    """
    scores = [torch.stack(list(found)).tolist() for found in passes]
    return skipped_blocks([sum(of_block) for of_block in zip(*scores)], cache_rate)


def skipped_blocks(scores: Sequence[float], cache_rate: float) -> set[int]:
    """The blocks with the smallest score, `cache_rate` of all, as a set of positions.

    Source: PreciseCache, Eq. 5.
    scores: one number per block, in the model's order. A block whose score is not finite is pivotal,
        and so is the first of two equal ones.
    """
    count = math.floor(cache_rate * len(scores) + 1e-9)
    order = sorted((s, -i) for i, s in enumerate(scores) if math.isfinite(s))
    return {-i for _, i in order[:count]}


def ranges_of(skipped: AbstractSet[int], segments: Sequence[object]) -> list[tuple[int, int]]:
    """Neighbouring skipped blocks as ranges (first, last), both included.

    segments: one label per block. A range does not cross from one segment to another, because the
        streams are joined, split or worked on there.
    """
    ranges: list[tuple[int, int]] = []
    for i in sorted(skipped):
        if ranges and ranges[-1][1] == i - 1 and segments[i] == segments[i - 1]:
            ranges[-1] = (ranges[-1][0], i)
        else:
            ranges.append((i, i))
    return ranges
