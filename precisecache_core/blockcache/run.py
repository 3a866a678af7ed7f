"""BlockCache over one sampling run: when blocks are ranked, kept and skipped."""

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch

from ..record.journal import Journal
from .block_pass import COMPUTE, MEASURE, REFRESH, REUSE, BlockPass
from .config import BlockCacheConfig
from .pivotal import smallest_norms
from .plan import BlockOrder, Key, Plan
from .residuals import Residual, empty_pinned_pool

Ranking = Callable[[Sequence[Sequence[torch.Tensor]], float], set[int]]

EVERYWHERE = math.inf


@dataclass
class BlockTally:
    """Counts of one run.

    block_calls: all block calls of computed model calls. block_calls_skipped: those that were skipped.
    pivotal_sets: for each refresh, the positions of the blocks that are computed until the next one.
    """

    block_calls: int = 0
    block_calls_skipped: int = 0
    pivotal_sets: list[list[int]] = field(default_factory=list)


class BlockCacheRun:
    """BlockCache for one run of a sampler; make a new one for every run.

    A call is one guided prediction at one noise level. It may take several passes through the model: one
    for each guidance branch or context window, or a second one for skip-layer guidance. Call `begin_call`
    before each call and `open_pass` for each pass, and replace each block by `run_block` of the BlockPass
    that `open_pass` returns.

    The first `warmup` calls are computed and rank the blocks. The last of them is a refresh: it keeps the
    residuals of the blocks to skip. The next `reuse_steps` calls skip these blocks, and then follows the
    next refresh.

    start_sigma: the noise level from which blocks may be skipped; sampling starts above it.
    journal: where the run records warnings and memory; a new one if None.
    rank: chooses the blocks to skip (see `smallest_norms`).
    """

    def __init__(
        self,
        config: BlockCacheConfig,
        start_sigma: float = EVERYWHERE,
        journal: Journal | None = None,
        rank: Ranking = smallest_norms,
    ) -> None:
        self.config = config
        self.start_sigma = start_sigma
        self.journal = journal or Journal()
        self.rank = rank
        self.tally = BlockTally()
        self.order = BlockOrder()
        self.mode = COMPUTE
        self.is_standing_aside = False
        self.plan = Plan()
        self.residuals: dict[Hashable, dict[Key, Residual]] = {}  # branch -> first block of a range -> Residual
        self._next_plan: Plan | None = None
        self._scores: list[list[torch.Tensor]] = []  # of this call: for each pass one 0-dim tensor per block
        self._calls = 0  # computed calls from start_sigma on
        self._next_sigma: torch.Tensor | float | None = 0.0  # of the next call; None once its first pass began
        self._passes = PassCounter()

    def release(self) -> None:
        """Drop every tensor."""
        self.plan, self._next_plan = Plan(), None
        self.residuals, self._scores = {}, []
        if self.config.cache_device == "cpu":
            empty_pinned_pool()

    def stand_aside(self, reason: str) -> None:
        """Compute every further block of this run, and warn why; only the first reason is reported."""
        if self.is_standing_aside:
            return
        self.is_standing_aside = True
        self.mode = COMPUTE
        self.release()
        self.journal.warn(f"BlockCache: {reason}: computing every block")

    def begin_call(self, sigma: torch.Tensor | float = 0.0) -> None:
        """Announce a call at this noise level, a number or a tensor with one element.

        A call without a pass (one that LFCache reuses) does not count.
        """
        self._next_sigma = sigma

    def _start_call(self, sigma: torch.Tensor | float) -> None:
        """Set the mode of this call's passes."""
        self._finish_call()
        self._passes = PassCounter(self._passes.lock)
        is_allowed = self.start_sigma == EVERYWHERE or float(sigma) <= self.start_sigma
        if self.is_standing_aside or self.config.cache_rate == 0 or not is_allowed:
            self.mode = COMPUTE
            return
        n, last = self._calls, self.config.warmup - 1
        self._calls += 1
        if n < last:
            self.mode = MEASURE
        elif (n - last) % (self.config.reuse_steps + 1):
            self.mode = REUSE
        else:
            self.mode = REFRESH
            self.residuals = {}  # dropped before the new ones are made, so that memory never holds both
            if self.is_merged:
                self._take(self._next_plan)

    def _finish_call(self) -> None:
        """Rank the blocks by the scores of the last call."""
        if self._scores:
            skipped = self.rank(self._scores, self.config.cache_rate)
            self._next_plan = self.order.plan(skipped, self.is_merged)
            self._scores = []
        if self.mode == REFRESH and not self.is_merged:
            self._take(self._next_plan)
            for of_branch in self.residuals.values():
                for key in of_branch.keys() - self.plan.leaders.keys():
                    del of_branch[key]

    def _take(self, plan: Plan | None) -> None:
        self.plan = plan or Plan()
        self.tally.pivotal_sets.append([i for i, key in enumerate(self.order.keys) if key not in self.plan.leader_of])

    def open_pass(self, branches: Sequence[tuple[Hashable, slice]], is_joined: bool = True) -> BlockPass:
        """Begin one pass; returns its BlockPass.

        branches: the guidance branches in the batch, [(name, slice of the batch)].
        is_joined: False if the model computes something from the streams after every block, so that no
            two blocks can be skipped as one.
        """
        with self._passes.lock:
            if self._next_sigma is not None:
                sigma, self._next_sigma = self._next_sigma, None
                self._start_call(sigma)
            names = [self._passes.name(name) for name, _ in branches]
            return BlockPass(self, names, [rows for _, rows in branches], is_joined)

    def close_pass(self, finished: BlockPass) -> None:
        """Collect the scores and segments of a pass; a pass of other blocks makes the run stand aside."""
        with self._passes.lock:
            if not finished.blocks or self.is_standing_aside:
                return
            if not self.order.keys:
                self.order.keys = finished.blocks
            if finished.blocks != self.order.keys:
                self.stand_aside("the model's blocks changed during the run")
            elif finished.scores and len(finished.scores) == len(self.order.keys):
                self._scores.append(finished.scores)
                self.order.learn_segments(finished.segments)
            self.journal.note_bytes("blockcache", self.cache_bytes)

    def note_skipped(self) -> None:
        """Count a block call that was skipped."""
        self.tally.block_calls_skipped += 1
        self.journal.blocks_skipped += 1

    @property
    def is_merged(self) -> bool:
        """Whether neighbouring skipped blocks are replaced as one."""
        return self.config.storage == "merged"

    @property
    def cache_bytes(self) -> int:
        """Bytes of residuals kept now."""
        return sum(r.nbytes for of_branch in self.residuals.values() for r in of_branch.values())

    def why_nothing_was_skipped(self) -> str | None:
        """One sentence that says why a run skipped no block; None if it skipped one or stood aside."""
        if self.tally.block_calls_skipped or self.is_standing_aside or not self.tally.block_calls:
            return None
        if self.config.cache_rate == 0:
            return "BlockCache: cache_rate is 0: no block is skipped"
        if self._calls <= self.config.warmup:
            return (
                f"BlockCache: {self._calls} computed calls after start_percent are too few to skip blocks: "
                f"the first {self.config.warmup} rank them"
            )
        if math.floor(self.config.cache_rate * len(self.order.keys)) == 0:
            return (
                f"BlockCache: cache_rate {self.config.cache_rate:g} of {len(self.order.keys)} blocks "
                "is less than one block: raise cache_rate"
            )
        return "BlockCache: no block could be ranked or kept, so that none was skipped"


class PassCounter:
    """Names the passes of one call apart: skip-layer guidance runs the same branch a second time."""

    def __init__(self, lock: "threading.Lock | None" = None) -> None:
        self.lock = lock or threading.Lock()  # the host may run branches on several devices at once
        self._counts: dict[Hashable, int] = {}

    def name(self, branch: Hashable) -> tuple[Hashable, int]:
        """(branch, number): the number counts the passes of this branch in this call, from 1."""
        self._counts[branch] = self._counts.get(branch, 0) + 1
        return branch, self._counts[branch]
