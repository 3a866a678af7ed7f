"""BlockCache over one sampling run: when blocks are ranked, kept and skipped."""

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch

from ..agreement import BLOCKS, PASS, PASSED, Agreement
from ..record.journal import Journal
from .block_pass import COMPUTE, MEASURE, REFRESH, REUSE, STANDING_ASIDE, BlockPass
from .config import BlockCacheConfig
from .pivotal import skipped_blocks, sums, total_scores
from .plan import BlockOrder, Key, Plan
from .residuals import Residual, empty_pinned_pool

Scores = Callable[[Sequence[Sequence[torch.Tensor]]], list[float]]

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
    read_scores: reads the blocks' scores from the device (see `total_scores`).
    agreement: with the other ranks that compute the same model; by default there are none.
    """

    def __init__(
        self,
        config: BlockCacheConfig,
        start_sigma: float = EVERYWHERE,
        journal: Journal | None = None,
        read_scores: Scores = total_scores,
        agreement: Agreement | None = None,
    ) -> None:
        self.config = config
        self.start_sigma = start_sigma
        self.journal = journal or Journal()
        self.read_scores = read_scores
        self.tally = BlockTally()
        self.order = BlockOrder()
        self.mode = COMPUTE
        self.plan = Plan()
        self.residuals: dict[Hashable, dict[Key, Residual]] = {}  # branch -> first block of a range -> Residual
        self._next_plan: Plan | None = None
        self._scores: list[list[torch.Tensor]] = []  # of this call: for each pass one 0-dim tensor per block
        self._calls = 0  # computed calls from start_sigma on
        self._next_sigma: torch.Tensor | float | None = 0.0  # of the next call; None once its first pass began
        self._passes = PassCounter()
        self.agreement = agreement or Agreement()
        self.agreement.on_wish("blockcache", self._stand_aside)

    def release(self) -> None:
        """Drop every tensor."""
        self.plan, self._next_plan = Plan(), None
        self.residuals, self._scores = {}, []
        if self.config.cache_device == "cpu":
            empty_pinned_pool()

    def stand_aside(self, reason: str) -> None:
        """Compute every further block, from when all ranks know it; warn why. Only the first reason is reported."""
        if not self.is_standing_aside:
            self.agreement.wish("blockcache", reason)
        if not self.is_standing_aside:  # the other ranks do not know yet, but the memory is free at once
            self.residuals = {}

    @property
    def is_standing_aside(self) -> bool:
        """Whether every further block is computed."""
        return self.mode == STANDING_ASIDE

    @property
    def is_usable(self) -> bool:
        """Whether this rank can do anything but compute."""
        return not self.is_standing_aside and not self.agreement.wishes("blockcache")

    def _stand_aside(self, reason: str) -> None:
        if self.is_standing_aside:
            return
        self.mode = STANDING_ASIDE
        self.release()
        self.journal.warn(f"BlockCache: {reason}: computing every block")

    def begin_call(self, sigma: torch.Tensor | float = 0.0) -> None:
        """Announce a call at this noise level, a number or a tensor with one element.

        A call without a pass (one that LFCache reuses) does not count.
        """
        self._next_sigma = sigma

    def _start_call(self, sigma: torch.Tensor | float) -> None:
        """Set the mode of this call's passes, the same for all ranks."""
        self._passes = PassCounter(self._passes.lock)
        if self.is_standing_aside or self.config.cache_rate == 0:
            return
        is_allowed = self._finish_call(self.start_sigma == EVERYWHERE or float(sigma) <= self.start_sigma)
        if self.is_standing_aside:
            return
        if not is_allowed:
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

    def _finish_call(self, is_allowed: bool) -> bool:
        """Rank the blocks by the scores of the last call, those of all ranks together.

        is_allowed: whether blocks may be skipped in the next call; returns whether all ranks say so.
        """
        scores, self._scores = self.read_scores(self._scores), []
        answer = self.agreement.settle(BLOCKS, is_allowed, scores)
        # a rank computes its share of the tokens, so that norms add up
        if scores and {len(of_rank) for of_rank in answer.values} == {len(scores)}:
            skipped = skipped_blocks(sums(answer.values), self.config.cache_rate)
            self._next_plan = self.order.plan(skipped, self.is_merged)
        if self.mode == REFRESH and not self.is_merged:
            self._take(self._next_plan)
            for of_branch in self.residuals.values():
                for key in of_branch.keys() - self.plan.leaders.keys():
                    del of_branch[key]
        return answer.is_able

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
            # a branch that the refresh did not see is computed and not kept: memory would grow
            # with context windows that move
            skips = self.mode == REUSE and all(name in self.residuals for name in names)
            if self.mode == REUSE:
                skips = self.agreement.settle(PASS, skips).is_able
            return BlockPass(self, names, [rows for _, rows in branches], is_joined, skips)

    def close_pass(self, finished: BlockPass) -> bool:
        """Collect the scores and segments of a pass; a pass of other blocks makes the run stand aside.

        Returns False if a rank failed to skip a block that the others skipped: the pass has to be computed again.
        """
        with self._passes.lock:
            if finished.skips and not self.agreement.settle(PASSED, not finished.has_failed).is_able:
                self.note_skipped(-finished.blocks_skipped)
                return False
            if not finished.blocks or not self.is_usable:
                return True
            if not self.order.keys:
                self.order.keys = finished.blocks
            if finished.blocks != self.order.keys:
                self.stand_aside("the model's blocks changed during the run")
            elif finished.scores and len(finished.scores) == len(self.order.keys):
                self._scores.append(finished.scores)
                self.order.learn_segments(finished.segments)
            self.journal.note_bytes("blockcache", self.cache_bytes)
            return True

    def note_skipped(self, number: int = 1) -> None:
        """Count block calls that were skipped."""
        self.tally.block_calls_skipped += number
        self.journal.blocks_skipped += number

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
