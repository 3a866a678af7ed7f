"""BlockCache in one pass through the model: compute, measure, keep or skip each block."""

import weakref

import torch

from ..memory import is_out_of_memory
from .residuals import Residual, add_residuals

OUT_OF_MEMORY = "memory ran out for the residuals (set cache_device to cpu)"


class BlockPass:
    """One pass of `BlockCacheRun`; the model calls `run_block` in place of each block.

    names: one name per guidance branch (and context window) in the batch, rows: its slice.
    is_joined: False if something is computed from the streams between all the blocks.
    """

    def __init__(self, run, mode, names, rows, is_joined):
        self.run = run
        self.plan = run.plan
        self.names = names
        self.rows = rows
        self.is_joined = is_joined
        # a branch that the refresh did not see is computed; to keep it would let memory grow
        # with context windows that wander
        self.skips = mode == "reuse" and all(name in run.held for name in names)
        self.keeps = mode == "refresh"
        self.keeps_all = self.keeps and run.config.storage == "per_block"
        self.measures = mode in ("measure", "refresh")
        self.blocks = []
        self.segments = []  # a number per block, the same for neighbours that may be merged
        self.scores = []
        self._returned = {}  # weak references to the streams as the block before left them
        self._skipped_leaders = set()
        if self.keeps:
            for name in names:
                run.held[name] = {}

    def close(self):
        """The pass has ended without an error."""
        self.run.close_pass(self)

    # torch.compile is to compile the blocks that `compute` calls and nothing of this: what is
    # decided here changes from call to call
    @torch.compiler.disable(recursive=False)
    def run_block(self, key, streams, compute):
        """The streams after a block: {name: tensor (B, tokens, dim)}.

        key: (kind, index); streams: the tensors that go in, of which the block may return
        some or all; compute(): calls the block and returns {name: tensor}.
        """
        run = self.run
        run.block_calls += 1
        leader = self.plan.leader_of.get(key) if self.plan else None
        if leader in self._skipped_leaders:
            # the leader added this block too: even if the run stands aside by now
            self.blocks.append(key)
            run.block_calls_skipped += 1
            return streams
        if run.is_standing_aside or not self._enter(key, streams):
            return compute()
        if self.skips and key == leader:
            skipped = self._skip(leader, streams)
            if skipped is not None:
                run.block_calls_skipped += 1
                return skipped
        is_kept = self.keeps_all or (self.keeps and leader is not None)
        if not (is_kept or self.measures):
            return compute()
        try:
            # blocks write into their input (Flux and HunyuanVideo do), so it has to be copied
            before = copies(streams)
        except (RuntimeError, MemoryError) as error:
            self._stand_aside(error)
            return compute()
        after = compute()
        try:
            self._learn(key, leader, before, after, is_kept)
        except (RuntimeError, MemoryError) as error:
            self._stand_aside(error)
        return after

    def _stand_aside(self, error):
        """Give up for want of memory; any other error goes on as it came."""
        if not is_out_of_memory(error):
            raise error
        self.run.stand_aside(OUT_OF_MEMORY)

    @torch.compiler.disable
    def _enter(self, key, streams):
        """Note the block; False where it cannot be cached."""
        reason = None
        if key in self.blocks:
            reason = "a block ran twice in one pass"
        elif not streams or not all(isinstance(t, torch.Tensor) for t in streams.values()):
            reason = "a block takes something else than tensors"
        elif any(t.shape[:1] != (self.rows[-1].stop,) for t in streams.values() if self.rows[-1].stop is not None):
            reason = "a block's streams are not batches of the model's input"
        if reason:
            self.run.stand_aside(reason)
            return False
        # what a model computes from x between two blocks is lost if they are skipped as one;
        # what it adds in place (ControlNet, VACE) is not
        is_joined = self.is_joined and self.blocks and self.blocks[-1][0] == key[0] and all(
            name in self._returned and self._returned[name]() is t for name, t in streams.items())
        self.blocks.append(key)
        self.segments.append(self.segments[-1] + (not is_joined) if self.segments else 0)
        self._leave(streams)
        return True

    def _leave(self, streams):
        if self.measures:
            self._returned.update((name, weakref.ref(t)) for name, t in streams.items())

    @torch.compiler.disable
    def _skip(self, leader, streams):
        """The streams after a whole range, or None if it has to be computed."""
        residuals = [self.run.held.get(name, {}).get(leader) for name in self.names]
        if not all(r is not None and r.fits(streams, part) for r, part in zip(residuals, self.rows)):
            return None
        try:
            result = add_residuals(streams, residuals, self.rows)
        except (RuntimeError, MemoryError) as error:
            self._stand_aside(error)
            return None
        self._skipped_leaders.add(leader)
        return result

    @torch.compiler.disable
    def _learn(self, key, leader, before, after, is_kept):
        """Measure and keep what a block added."""
        added = _difference(after, before)
        if added is None:
            self.run.stand_aside("a block returned something else than its streams")
            return
        self._leave(after)
        if self.measures:
            self.scores.append(self._score(key, added))
        if is_kept:
            self._keep(leader if self.run.config.storage == "merged" else key, key, added)

    def _score(self, key, added):
        """By what the blocks are ranked: the squared norm of the residual, 0-dim on the device.

        Source: PreciseCache, Eq. 5; squared, and summed over the streams of a block.
        """
        return sum(torch.linalg.vector_norm(t, dtype=torch.float32).square() for t in added.values())

    def _new_residual(self, name, leader):
        return Residual(self.run.config.cache_device)

    def _keep(self, leader, key, added):
        last = self.plan.leaders[leader][-1] if self.run.config.storage == "merged" else key
        for name, part in zip(self.names, self.rows):
            held = self.run.held.setdefault(name, {})
            if leader not in held:
                held[leader] = self._new_residual(name, leader)
            # a slice of a batch would keep the whole batch: one branch alone is handed over as it is
            held[leader].add({n: t[part] if len(self.rows) > 1 else t for n, t in added.items()})
            if key == last:
                held[leader].settle()


@torch.compiler.disable
def copies(streams):
    """The streams, copied."""
    return {name: stream.clone() for name, stream in streams.items()}


def _difference(after, before):
    """{stream: after - before} in the memory of `before`, or None if the streams do not match."""
    if not isinstance(after, dict) or not after:
        return None
    added = {}
    for name, tensor in after.items():
        old = before.get(name)
        if old is None or not isinstance(tensor, torch.Tensor) or (
                tensor.shape, tensor.dtype, tensor.device) != (old.shape, old.dtype, old.device):
            return None
        with torch.no_grad():
            added[name] = torch.sub(tensor, old, out=old)
    return added
