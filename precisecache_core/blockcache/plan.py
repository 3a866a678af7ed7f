"""The model's blocks in order, and which of them are skipped until the next refresh."""

import itertools
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from .pivotal import ranges_of

Key = tuple[str, int]  # (kind, index) of a block


class Plan:
    """Which blocks are skipped, in ranges that are replaced as one.

    keys: all blocks in order. ranges: (first, last) positions of skipped blocks, both included.
    leaders: the first block of each range -> all blocks of the range. leader_of: each skipped block ->
    the first block of its range.
    """

    def __init__(self, keys: Sequence[Key] = (), ranges: Sequence[tuple[int, int]] = ()) -> None:
        self.leaders = {keys[first]: tuple(keys[first : last + 1]) for first, last in ranges}
        self.leader_of = {key: leader for leader, blocks in self.leaders.items() for key in blocks}


class BlockOrder:
    """The blocks in the order in which the model calls them, known after the first pass.

    keys: of the blocks. segments: one number per block, equal for neighbours that may be skipped as one.
    """

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.segments: list[int] = []

    def learn_segments(self, segments: Sequence[int]) -> None:
        """Add the segment boundaries of one pass: a boundary in one pass holds for all passes."""
        pairs = zip(self.segments or segments, segments)
        is_boundary = (before != pair for before, pair in itertools.pairwise(pairs))
        self.segments = list(itertools.accumulate(is_boundary, initial=0))

    def plan(self, skipped: AbstractSet[int], is_merged: bool) -> Plan:
        """The plan that skips the blocks at these positions; if `is_merged`, neighbours are replaced as one."""
        if is_merged:
            return Plan(self.keys, ranges_of(skipped, self.segments))
        return Plan(self.keys, [(i, i) for i in sorted(skipped)])
