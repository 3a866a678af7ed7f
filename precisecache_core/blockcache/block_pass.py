"""BlockCache in one pass through the model: it computes, measures, keeps or skips each block."""

import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import torch

from ..memory import raise_unless_out_of_memory
from .plan import Key
from .residuals import Residual, add_residuals

if TYPE_CHECKING:
    from .run import BlockCacheRun

Streams = dict[str, torch.Tensor]

# the mode of a call, the same for all its passes: compute only; compute and measure; compute, measure and
# keep residuals; skip blocks; compute only, like every later call
COMPUTE, MEASURE, REFRESH, REUSE, STANDING_ASIDE = "compute", "measure", "refresh", "reuse", "standing aside"

OUT_OF_MEMORY = "no memory for the residuals (set cache_device to cpu)"


class BlockPass:
    """One pass through the model; `run_block` is called in place of each block.

    run: the BlockCacheRun. names: one name per guidance branch (and context window) in the batch.
    rows: the slice of the batch that each of them takes.
    is_joined: False if the model computes something from the streams after every block.
    skips: whether blocks are skipped. All ranks skip the same ones, so a rank that cannot skip one goes on without a
        result (`has_failed`), and then all compute the pass again (see `close`).
    """

    def __init__(
        self,
        run: "BlockCacheRun",
        names: Sequence[Hashable],
        rows: Sequence[slice],
        is_joined: bool,
        skips: bool,
    ) -> None:
        self.run = run
        self.plan = run.plan
        self.names = names
        self.rows = rows
        self.is_joined = is_joined
        self.skips = skips
        self.has_failed = False
        self.blocks_skipped = 0
        self.keeps = run.mode == REFRESH
        self.measures = run.mode in (MEASURE, REFRESH)
        self.blocks: list[Key] = []
        self.segments: list[int] = []  # one number per block, equal for neighbours that may be merged
        self.scores: list[torch.Tensor] = []
        self._returned: dict[str, weakref.ref] = {}  # the streams that the previous block returned
        self._skipped_leaders: set[Key] = set()
        if self.keeps:
            for name in names:
                run.residuals[name] = {}

    def close(self) -> bool:
        """End the pass; not called if the model raised an error.

        Returns False if the model has to compute the pass again, without `run_block`.
        """
        return self.run.close_pass(self)

    # torch.compile must compile the blocks that `compute` calls, but not this function: its
    # decisions change from call to call
    @torch.compiler.disable(recursive=False)
    def run_block(self, key: Key, streams: Streams, compute: Callable[[], Streams]) -> Streams:
        """Run or skip one block; returns the streams after it, {name: tensor (B, tokens, dim)}.

        key: (kind, index) of the block. streams: its inputs, {name: tensor (B, tokens, dim)}.
        compute(): calls the block; returns all or some of the streams, with shapes unchanged.
        A skipped block returns new tensors; `streams` is not written to, except by the block itself.
        """
        run = self.run
        run.tally.block_calls += 1
        leader = self.plan.leader_of.get(key)
        if leader is not None and leader in self._skipped_leaders:
            # the leader's residual includes this block, even if the run stands aside by now
            self.blocks.append(key)
            return self._skipped(streams)
        can_cache = run.is_usable and self._enter(key, streams)
        if self.skips and leader is not None and key == leader:
            skipped = self._skip(leader, streams) if can_cache else None
            if skipped is None and run.agreement.is_open:
                skipped = self._fail(leader, streams)
            if skipped is not None:
                return self._skipped(skipped)
        if not can_cache:
            return compute()
        is_kept = self.keeps and (not run.is_merged or leader is not None)
        if not (is_kept or self.measures):
            return compute()
        try:
            # some blocks write into their input (Flux, HunyuanVideo), so it has to be copied
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

    def _skipped(self, streams: Streams) -> Streams:
        """The streams after a skipped block, which is counted."""
        self.blocks_skipped += 1
        self.run.note_skipped()
        return streams

    def _fail(self, leader: Key, streams: Streams) -> Streams:
        """The other ranks skip this range and this one cannot: go on with anything, for the pass is computed again."""
        self.has_failed = True
        self._skipped_leaders.add(leader)
        self.run.stand_aside("what blocks added cannot be used")
        return streams

    def _stand_aside(self, error: Exception) -> None:
        """Stand aside if memory ran out, otherwise raise the error again."""
        raise_unless_out_of_memory(error)
        self.run.stand_aside(OUT_OF_MEMORY)

    @torch.compiler.disable
    def _enter(self, key: Key, streams: Streams) -> bool:
        """Record the block; False if it cannot be cached."""
        reason = None
        if key in self.blocks:
            reason = "a block ran twice in one pass"
        elif not streams or not all(isinstance(t, torch.Tensor) for t in streams.values()):
            reason = "a block's inputs are not all tensors"
        elif any(t.shape[:1] != (self.rows[-1].stop,) for t in streams.values() if self.rows[-1].stop is not None):
            reason = "a block's inputs have a different batch size from the model's input"
        if reason:
            self.run.stand_aside(reason)
            return False
        # if two blocks are skipped as one, whatever the model computes between them is lost; what it
        # adds in place (ControlNet, VACE) is not
        is_joined = (
            self.is_joined
            and self.blocks
            and self.blocks[-1][0] == key[0]
            and all(name in self._returned and self._returned[name]() is t for name, t in streams.items())
        )
        self.blocks.append(key)
        self.segments.append(self.segments[-1] + (not is_joined) if self.segments else 0)
        self._note_returned(streams)
        return True

    def _note_returned(self, streams: Streams) -> None:
        if self.measures:
            self._returned.update((name, weakref.ref(t)) for name, t in streams.items())

    @torch.compiler.disable
    def _skip(self, leader: Key, streams: Streams) -> Streams | None:
        """The streams after the leader's whole range; None if it has to be computed."""
        found = [self.run.residuals.get(name, {}).get(leader) for name in self.names]
        residuals = [r for r, part in zip(found, self.rows) if r is not None and r.fits(streams, part)]
        if len(residuals) < len(self.names):
            return None
        try:
            result = add_residuals(streams, residuals, self.rows)
        except (RuntimeError, MemoryError) as error:
            self._stand_aside(error)
            return None
        self._skipped_leaders.add(leader)
        return result

    @torch.compiler.disable
    def _learn(self, key: Key, leader: Key | None, before: Streams, after: Streams, is_kept: bool) -> None:
        """Measure and keep a block's residual."""
        added = _difference(after, before)
        if added is None:
            self.run.stand_aside("a block's outputs do not match its inputs")
            return
        self._note_returned(after)
        if self.measures:
            self.scores.append(squared_norm(added))
        if is_kept:
            self._keep(leader if leader is not None and self.run.is_merged else key, key, added)

    def _keep(self, leader: Key, key: Key, added: Streams) -> None:
        last = self.plan.leaders[leader][-1] if self.run.is_merged else key
        for name, part in zip(self.names, self.rows):
            kept = self.run.residuals.setdefault(name, {})
            if leader not in kept:
                kept[leader] = Residual(self.run.config.cache_device)
            # the slices are views; the branches together use the whole batch
            kept[leader].add({n: t[part] if len(self.rows) > 1 else t for n, t in added.items()})
            if key == last:
                kept[leader].settle()


def squared_norm(added: Streams) -> torch.Tensor:
    """The score of a block: the squared L2 norm of its residual, 0-dim float32 on the device.

    Source: PreciseCache, Eq. 5. Ours: squared, and summed over the streams of a block.
    added: the residual, {stream: tensor (B, tokens, dim)}, any float dtype.
    """
    return torch.stack([torch.linalg.vector_norm(t, dtype=torch.float32).square() for t in added.values()]).sum()


@torch.compiler.disable
def copies(streams: Streams) -> Streams:
    """A copy of every stream."""
    return {name: stream.clone() for name, stream in streams.items()}


def _difference(after: Streams, before: Streams) -> Streams | None:
    """{stream: after - before}, written into `before`; None if the streams do not match."""
    if not isinstance(after, dict) or not after:
        return None
    added: Streams = {}
    for name, tensor in after.items():
        old = before.get(name)
        if (
            old is None
            or not isinstance(tensor, torch.Tensor)
            or (tensor.shape, tensor.dtype, tensor.device) != (old.shape, old.dtype, old.device)
        ):
            return None
        with torch.no_grad():
            added[name] = torch.sub(tensor, old, out=old)
    return added
