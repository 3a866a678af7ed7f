"""BlockCache in one pass through the model: compute, measure, keep or skip each block."""

import torch

from .residuals import Residual, add_residuals


class BlockPass:
    """One pass of `BlockCacheRun`; the model calls `run_block` in place of each block.

    names: one name per guidance branch (and context window) in the batch, rows: its slice.
    """

    def __init__(self, run, mode, names, rows):
        self.run = run
        self.names = names
        self.rows = rows
        # a branch that the refresh did not see is computed; to keep it would let memory grow
        # with context windows that wander
        self.skips = mode == "reuse" and all(name in run.held for name in names)
        self.keeps = mode == "refresh"
        self.keeps_all = self.keeps and run.config.storage == "per_block"
        self.measures = mode in ("measure", "refresh")
        self.blocks = []
        self.scores = []
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
        self.blocks.append(key)
        run.block_calls += 1
        leader = run.plan.leader_of.get(key) if run.plan and not run.is_standing_aside else None
        if self.skips and leader is not None:
            if key == leader:
                residuals = [run.held[name].get(leader) for name in self.names]
                if all(r is not None and r.fits(streams, part) for r, part in zip(residuals, self.rows)):
                    self._skipped_leaders.add(leader)
                    run.block_calls_skipped += 1
                    return add_residuals(streams, residuals, self.rows)
            elif leader in self._skipped_leaders:
                run.block_calls_skipped += 1
                return streams
        is_kept = self.keeps_all or (self.keeps and leader is not None)
        if run.is_standing_aside or not (is_kept or self.measures):
            return compute()
        # blocks write into their input (Flux and HunyuanVideo do), so it has to be copied
        before = {name: stream.clone() for name, stream in streams.items()}
        after = compute()
        added = _difference(after, before)
        if added is None:
            run.stand_aside("a block returned something else than its streams")
            return after
        if self.measures:
            self.scores.append(self._score(key, added))
        if is_kept:
            self._keep(leader if run.config.storage == "merged" else key, key, added)
        return after

    @torch.compiler.disable
    def _score(self, key, added):
        """By what the blocks are ranked: the squared norm of the residual, 0-dim on the device.

        Source: PreciseCache, Eq. 5; squared, and summed over the streams of a block.
        """
        return sum(torch.linalg.vector_norm(t, dtype=torch.float32).square() for t in added.values())

    def _new_residual(self, name, leader):
        return Residual(self.run.config.cache_device)

    @torch.compiler.disable
    def _keep(self, leader, key, added):
        last = self.run.plan.leaders[leader][-1] if self.run.config.storage == "merged" else key
        for name, part in zip(self.names, self.rows):
            held = self.run.held[name]
            if leader not in held:
                held[leader] = self._new_residual(name, leader)
            # a slice of a batch would keep the whole batch: one branch alone is handed over as it is
            held[leader].add({n: t[part] if len(self.rows) > 1 else t for n, t in added.items()})
            if key == last:
                held[leader].settle()


@torch.compiler.disable
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
