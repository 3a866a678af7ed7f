"""BlockCache over one sampling run: when to rank, to keep, and to skip blocks."""

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
    """What was counted: calls of blocks, those skipped, and per refresh the blocks computed until the next."""

    block_calls: int = 0
    block_calls_skipped: int = 0
    pivotal_sets: list[list[int]] = field(default_factory=list)


class BlockCacheRun:
    """BlockCache for one run of a sampler; make a new one for every run.

    A call is one guided prediction at one noise level. It may take several passes through the model:
    guidance branches apart, context windows, skip-layer guidance. Say `begin_call` before each call and
    `open_pass` for each pass; `run_block` of what that returns stands where a block would be called.

    The first `warmup` calls are computed and rank the blocks. The last of them is a refresh: it keeps
    what the blocks to be skipped add. `reuse_steps` calls skip them, then comes the next refresh.

    start_sigma: noise level from which blocks may be skipped; lower levels come later.
    journal: what the run writes its record to.
    rank: by what the blocks to skip are chosen (see `smallest_norms`).
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
        self.held: dict[Hashable, dict[Key, Residual]] = {}  # branch -> leader of a range -> Residual
        self._next_plan: Plan | None = None
        self._scores: list[list[torch.Tensor]] = []  # of this call: per pass one 0-dim tensor per block
        self._calls = 0  # after start_sigma
        self._next_sigma: torch.Tensor | float | None = 0.0  # of the call to come; None once it has begun
        self._passes = PassCounter()

    def release(self) -> None:
        """Let go of every tensor."""
        self.plan, self._next_plan = Plan(), None
        self.held, self._scores = {}, []
        if self.config.cache_device == "cpu":
            empty_pinned_pool()

    def stand_aside(self, reason: str) -> None:
        """Compute every further block of this run, and say why; the first reason counts."""
        if self.is_standing_aside:
            return
        self.is_standing_aside = True
        self.mode = COMPUTE
        self.release()
        self.journal.warn(f"BlockCache: {reason}: computing every block")

    def begin_call(self, sigma: torch.Tensor | float = 0.0) -> None:
        """A call at this noise level follows. It may turn out to need no pass: then it counts for nothing."""
        self._next_sigma = sigma

    def _start_call(self, sigma: torch.Tensor | float) -> None:
        """Decide what the passes of this call do."""
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
            self.held = {}  # before the new ones are made: never both at once
            if self.is_merged:
                self._take(self._next_plan)

    def _finish_call(self) -> None:
        """Rank the blocks by what the last call measured."""
        if self._scores:
            skipped = self.rank(self._scores, self.config.cache_rate)
            self._next_plan = self.order.plan(skipped, self.is_merged)
            self._scores = []
        if self.mode == REFRESH and not self.is_merged:
            self._take(self._next_plan)
            for held in self.held.values():
                for key in held.keys() - self.plan.leaders.keys():
                    del held[key]

    def _take(self, plan: Plan | None) -> None:
        self.plan = plan or Plan()
        self.tally.pivotal_sets.append([i for i, key in enumerate(self.order.keys) if key not in self.plan.leader_of])

    def open_pass(self, branches: Sequence[tuple[Hashable, slice]], is_joined: bool = True) -> BlockPass:
        """The BlockPass of one pass for these branches, [(name, slice of the batch)].

        is_joined: False if something is computed from the streams between all the blocks, so that no
            two of them can be skipped as one.
        """
        with self._passes.lock:
            if self._next_sigma is not None:
                sigma, self._next_sigma = self._next_sigma, None
                self._start_call(sigma)
            names = [self._passes.name(name) for name, _ in branches]
            return BlockPass(self, names, [rows for _, rows in branches], is_joined)

    def close_pass(self, finished: BlockPass) -> None:
        """Take over what a pass measured."""
        with self._passes.lock:
            if not finished.blocks or self.is_standing_aside:
                return
            if not self.order.keys:
                self.order.keys = finished.blocks
            if finished.blocks != self.order.keys:
                self.stand_aside("the model's blocks changed in mid-run")
            elif finished.scores and len(finished.scores) == len(self.order.keys):
                self._scores.append(finished.scores)
                self.order.learn_segments(finished.segments)
            self.journal.note_bytes("blockcache", self.cache_bytes)

    @property
    def is_merged(self) -> bool:
        """Whether neighbouring skipped blocks are replaced as one."""
        return self.config.storage == "merged"

    @property
    def cache_bytes(self) -> int:
        """Bytes of residuals held now."""
        return sum(r.nbytes for held in self.held.values() for r in held.values())

    def why_nothing_was_skipped(self) -> str | None:
        """One sentence for a run that skipped no block, or None if it skipped one or stood aside."""
        if self.tally.block_calls_skipped or self.is_standing_aside or not self.tally.block_calls:
            return None
        if self.config.cache_rate == 0:
            return "BlockCache: cache_rate is 0: no block is skipped"
        if self._calls <= self.config.warmup:
            return (
                f"BlockCache: {self._calls} computed calls after start_percent are too few to skip blocks in any, "
                f"the first {self.config.warmup} are for ranking them"
            )
        if math.floor(self.config.cache_rate * len(self.order.keys)) == 0:
            return f"BlockCache: {self.config.cache_rate:g} of {len(self.order.keys)} blocks is none: raise cache_rate"
        return "BlockCache: no block could be ranked or kept: none is skipped"


class PassCounter:
    """Names the passes of one call: skip-layer guidance sends the same branch through the model again."""

    def __init__(self, lock: "threading.Lock | None" = None) -> None:
        self.lock = lock or threading.Lock()  # the host may run branches on several devices at once
        self._counts: dict[Hashable, int] = {}

    def name(self, branch: Hashable) -> tuple[Hashable, int]:
        """(branch, how many times it has come in this call)."""
        self._counts[branch] = self._counts.get(branch, 0) + 1
        return branch, self._counts[branch]
