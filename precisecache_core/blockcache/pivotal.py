"""Which blocks are pivotal (Eq. 5), and which neighbours can be skipped as one."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import torch


def total_scores(passes: Sequence[Sequence[torch.Tensor]]) -> list[float]:
    """The score of each block over the passes of one call, in the model's order.

    passes: for each pass one 0-dim score per block (see `squared_norm`).
    Reads the device once per pass, because passes may have run on different devices.
    """
    return sums([torch.stack(list(found)).tolist() for found in passes])


def sums(rows: Sequence[Sequence[float]]) -> list[float]:
    """The sum of each column."""
    return [sum(column) for column in zip(*rows)]


def skipped_blocks(scores: Sequence[float], cache_rate: float) -> set[int]:
    """The positions of the blocks with the smallest scores.

    Source: PreciseCache, Eq. 5.
    scores: one number per block, in the model's order. A block whose score is not finite is never
        skipped. Of two equal scores the later block is skipped first.
    cache_rate: share of the blocks to skip, rounded down to whole blocks.
    """
    limit = math.floor(cache_rate * len(scores) + 1e-9)
    order = sorted((s, -i) for i, s in enumerate(scores) if math.isfinite(s))
    return {-i for _, i in order[:limit]}


def ranges_of(skipped: AbstractSet[int], segments: Sequence[object]) -> list[tuple[int, int]]:
    """Neighbouring skipped blocks as ranges (first, last), both included.

    skipped: positions of blocks. segments: one label per block. A range does not cross from one segment
        to another, because the model joins, splits or changes the streams there.
    """
    ranges: list[tuple[int, int]] = []
    for i in sorted(skipped):
        if ranges and ranges[-1][1] == i - 1 and segments[i] == segments[i - 1]:
            ranges[-1] = (ranges[-1][0], i)
        else:
            ranges.append((i, i))
    return ranges
