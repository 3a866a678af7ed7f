"""BlockCache over one sampling run: when to rank, to keep, and to skip blocks."""

import itertools
import logging
import math
import threading

import torch

from .block_pass import BlockPass
from .pivotal import runs_of, skipped_blocks
from .residuals import empty_pinned_pool

logger = logging.getLogger("precisecache")

COMPUTE, MEASURE, REFRESH, REUSE = "compute", "measure", "refresh", "reuse"


class Plan:
    """Which blocks are skipped, in ranges that are replaced as one.

    leaders: first block of a range -> all blocks of it; followers: the other blocks.
    """

    def __init__(self, keys, ranges):
        self.leaders = {keys[first]: tuple(keys[first:last + 1]) for first, last in ranges}
        self.leader_of = {key: leader for leader, blocks in self.leaders.items() for key in blocks}


class BlockCacheRun:
    """State of BlockCache for one run of a sampler; make a new one for every run.

    A call is one guided prediction at one noise level. It may take several passes through
    the model: guidance branches apart, context windows, skip-layer guidance. Say
    `begin_call` before each computed call and `open_pass` for each pass; `run_block` of
    what that returns stands where a block would be called.

    The first `warmup` calls are computed and rank the blocks. The last of them is a
    refresh: it keeps what the blocks to be skipped add. `reuse_steps` calls skip them,
    then comes the next refresh.
    """

    pass_type = BlockPass

    def __init__(self, config):
        self.config = config
        self.warnings = []
        self.pivotal_sets = []
        self.block_calls = 0
        self.block_calls_skipped = 0
        self.peak_bytes = 0
        self.is_standing_aside = False
        self.keys = []  # the blocks in the model's order, known after the first pass
        self.segments = []  # for each of them a number, the same where neighbours may be merged
        self.mode = COMPUTE
        self._calls = 0
        self._is_new_call, self._is_allowed = True, True
        self._lock = threading.Lock()  # the host may run branches on several devices at once
        self._branch_passes = {}
        self.release()

    def release(self):
        """Let go of every tensor."""
        self.plan = self._next_plan = None
        self.held = {}  # branch -> leader of a range -> Residual
        if self.config.cache_device == "cpu":
            empty_pinned_pool()
        self._scores = []  # of this call: one list a pass of one 0-dim tensor a block

    def warn(self, text):
        """Say something once: into the log and into the report."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("PreciseCache: %s", text)

    def stand_aside(self, reason):
        """Compute every further block of this run, and say why; the first reason counts."""
        if self.is_standing_aside:
            return
        self.is_standing_aside = True
        self.mode = COMPUTE
        self.release()
        self.warn(f"BlockCache: {reason}: computing every block")

    def begin_call(self, is_allowed=True):
        """A computed call follows; `is_allowed` if the schedule has passed start_percent."""
        self._is_new_call, self._is_allowed = True, is_allowed

    def _start_call(self):
        """Decide what the passes of this call do. Only now: a call may yet turn out to need none."""
        self._is_new_call = False
        self._finish_call()
        self._branch_passes = {}
        if self.is_standing_aside or self.config.cache_rate == 0 or not self._is_allowed:
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
            if self.config.storage == "merged":
                self._take(self._next_plan)

    def _finish_call(self):
        """Rank the blocks by what the last call measured."""
        if self._scores:
            self._next_plan = self._rank()
            self._scores = []
        if self.mode == REFRESH and self.config.storage == "per_block":
            self._take(self._next_plan)
            for held in self.held.values():
                for key in held.keys() - self.plan.leaders.keys():
                    del held[key]

    def _rank(self):
        """The plan of what to skip, from the scores of one call."""
        # one read-back a pass; passes may have run on different devices
        passes = [torch.stack(scores).tolist() for scores in self._scores]
        return self.plan_for(skipped_blocks([sum(scores) for scores in zip(*passes)], self.config.cache_rate))

    def plan_for(self, skipped):
        """The plan that skips these blocks, a set of positions among `keys`."""
        if self.config.storage == "per_block":
            return Plan(self.keys, [(i, i) for i in sorted(skipped)])
        return Plan(self.keys, runs_of(skipped, self.segments))

    def _take(self, plan):
        self.plan = plan or Plan([], [])
        self.pivotal_sets.append([i for i, key in enumerate(self.keys) if key not in self.plan.leader_of])

    def open_pass(self, branches, is_joined=True):
        """The BlockPass of one pass for these branches, [(name, slice of the batch)].

        is_joined: False if something is computed from the streams between all the blocks, so
            that no two of them can be skipped as one.
        """
        with self._lock:
            if self._is_new_call:
                self._start_call()
            names = []
            for name, _ in branches:
                # skip-layer guidance sends the same branch through the model again
                count = self._branch_passes[name] = self._branch_passes.get(name, 0) + 1
                names.append((name, count))
            return self.pass_type(self, self.mode, names, [rows for _, rows in branches], is_joined)

    def close_pass(self, finished):
        """Take over what a pass measured."""
        with self._lock:
            if not finished.blocks or self.is_standing_aside:
                return
            if not self.keys:
                self.keys = finished.blocks
            if finished.blocks != self.keys:
                self.stand_aside("the model's blocks changed in mid-run")
            elif finished.scores and len(finished.scores) == len(self.keys):
                self._scores.append(finished.scores)
                # a boundary in one pass is one in all
                pairs = zip(self.segments or finished.segments, finished.segments)
                self.segments = list(itertools.accumulate(
                    (before != pair for before, pair in itertools.pairwise(pairs)), initial=0))
            self.peak_bytes = max(self.peak_bytes, self.cache_bytes)

    @property
    def cache_bytes(self):
        """Bytes of residuals held now."""
        return sum(r.nbytes for held in self.held.values() for r in held.values())

    def add_to(self, entry):
        """Write BlockCache's part into the run's report entry (see `report`)."""
        entry["blockcache"] = {
            "blocks": len(self.keys), "pivotal": list(self.pivotal_sets),
            "block_calls": self.block_calls, "block_calls_skipped": self.block_calls_skipped}
        entry["cache_bytes"]["blockcache"] = self.peak_bytes
        if reason := self._why_nothing_was_skipped():
            self.warn(reason)
        entry["warnings"] += self.warnings

    def _why_nothing_was_skipped(self):
        """One sentence for a run that skipped no block, or None if it skipped one or stood aside."""
        if self.block_calls_skipped or self.is_standing_aside or not self.block_calls:
            return None
        if self.config.cache_rate == 0:
            return "BlockCache: cache_rate is 0: no block is skipped"
        if self._calls <= self.config.warmup:
            return (f"BlockCache: {self._calls} computed calls after start_percent are too few to skip blocks in any, "
                    f"the first {self.config.warmup} are for ranking them")
        if math.floor(self.config.cache_rate * len(self.keys)) == 0:
            return f"BlockCache: {self.config.cache_rate:g} of {len(self.keys)} blocks is none: raise cache_rate"
        return "BlockCache: no block could be ranked or kept: none is skipped"
