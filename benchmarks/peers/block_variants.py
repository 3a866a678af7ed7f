"""Other ways to choose and to reuse blocks than BlockCache's, to be measured beside it."""

from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch

from testkit.tiny_host import pack_module

DRIFT_STRIDE = 4  # drift is ranked on every fourth token


@dataclass(frozen=True)
class Variant:
    """drift: skip the blocks whose residual changed least since it was last measured.

    forecast: extrapolate a residual over sigma from two refreshes, by the share (least
        squares, in [0, 1]) of the last forecast that came true.
    drift_bound: after a refresh whose residuals changed by more than this share of their
        norm, compute until the next one; None: never.
    """

    drift: bool = False
    forecast: bool = False
    drift_bound: float | None = None


@contextmanager
def using(variant):
    """While inside, BlockCache in the host works as the variant says; None changes nothing."""
    if variant is None:
        yield
        return
    host = pack_module("nodes.host.attachment")
    with mock.patch.object(host, "GuidedBlocks", _blocks_of(variant)):
        yield


def _blocks_of(variant):
    core = pack_module("precisecache_core.blockcache.run")
    Pass = pack_module("precisecache_core.blockcache.block_pass").BlockPass
    Residual = pack_module("precisecache_core.blockcache.residuals").Residual
    Blocks = pack_module("nodes.host.attachment").GuidedBlocks

    class TrackedResidual(Residual):
        """A residual that knows the one before it."""

        def __init__(self, run, previous, blocks):
            super().__init__(run.config.cache_device)
            self.run, self.blocks, self.sigma = run, blocks, run.sigma
            self.previous = previous if previous is not None and previous.blocks == blocks else None
            if self.previous is not None and self.previous.previous is not None:
                self.previous.previous.previous = None  # three are enough

        def slope(self, name):
            return (self.streams[name] - self.previous.streams[name]) / (self.sigma - self.previous.sigma)

        def gain(self, name):
            """The share of the previous forecast that came true."""
            if self.previous.previous is None:
                return 0.0
            forecast = self.previous.slope(name) * (self.sigma - self.previous.sigma)
            came = self.streams[name] - self.previous.streams[name]
            return ((forecast * came).sum() / forecast.square().sum()).nan_to_num().clamp(0, 1)

        def stream(self, name):
            if not variant.forecast or self.previous is None:
                return self.streams[name]
            return self.streams[name] + self.gain(name) * (self.run.sigma - self.sigma) * self.slope(name)

    class VariantPass(Pass):
        def _score(self, key, added):
            if not variant.drift:
                return super()._score(key, added)
            sample = {n: t[:, ::DRIFT_STRIDE].clone() for n, t in added.items()}
            before = self.run.samples.get((*self.names, key))
            self.run.samples[(*self.names, key)] = sample
            if before is not None:
                sample = {n: t - before[n] for n, t in sample.items()}
            return super()._score(key, sample)

        def _new_residual(self, name, leader):
            previous = self.run.last.get(name, {}).get(leader)
            return TrackedResidual(self.run, previous, self.plan.leaders[leader])

    class VariantRun(core.BlockCacheRun):
        pass_type = VariantPass

        def release(self):
            super().release()
            self.samples, self.last = {}, {}

        def _start_call(self):
            held = self.held
            super()._start_call()
            if self.mode == core.REFRESH:
                self.last = held
            elif self.mode == core.REUSE and self._drifts():
                self.mode = core.COMPUTE

        def _drifts(self):
            if variant.drift_bound is None:
                return False
            residuals = [r for held in self.held.values() for r in held.values()]
            if any(r.previous is None for r in residuals):
                return True
            pairs = [(t, r.previous.streams[n]) for r in residuals for n, t in r.streams.items()]
            drift = sum((t - p).square().sum() for t, p in pairs)
            size = sum(t.square().sum() for t, _ in pairs)
            return bool(torch.sqrt(drift / size) > variant.drift_bound)

    class VariantBlocks(Blocks):
        def __init__(self, config, guider, steps):
            super().__init__(config, guider, steps)
            self.cache = VariantRun(config)

        def begin_call(self, timestep):
            self.cache.sigma = timestep.flatten()[0].item()
            super().begin_call(timestep)

    return VariantBlocks
