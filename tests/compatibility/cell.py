"""A graph that people build, and what the cache must do in it."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from unittest import mock

import torch
from PreciseCache.nodes.host.events import CallFeed
from PreciseCache.nodes.host.sampler_run import SamplerRun
from PreciseCache.nodes.host.trials import TrialGuider
from PreciseCache.nodes.host.unconditional import UnconditionalFeed
from PreciseCache.precisecache_core.blockcache.block_pass import BlockPass
from PreciseCache.precisecache_core.blockcache.residuals import Residual
from PreciseCache.precisecache_core.blockcache.run import BlockCacheRun
from PreciseCache.precisecache_core.cached_run import CachedRun
from PreciseCache.precisecache_core.lfcache.call import Call
from PreciseCache.precisecache_core.lfcache.predictions import Predictions
from PreciseCache.precisecache_core.lfcache.run import LFCacheRun
from PreciseCache.precisecache_core.lfcache.stage import Stage

CACHED = "cached"
UNTRIED = "cached without trials"
COMPUTED = "computed"
SKIPPED = "not run"
# the classes whose objects live only as long as a run
OF_A_RUN = {
    SamplerRun,
    TrialGuider,
    UnconditionalFeed,
    CallFeed,
    CachedRun,
    LFCacheRun,
    Stage,
    Predictions,
    Call,
    BlockCacheRun,
    BlockPass,
    Residual,
}


class Skip(Exception):
    """This machine or this host cannot run the cell; says why."""


@dataclass(frozen=True)
class Cell:
    """A graph with its name and the result that it must have.

    area, name: its place in the table.
    run(bench, attach): samples the graph and returns its latent (or a tuple of them); every MODEL
        that a user would send through our nodes goes through `attach`. Raises Skip.
    verdict: CACHED, UNTRIED or COMPUTED. says: part of the report's one warning, if there must be one.
    bound: the largest change that LFCache may make to a trained model's latent, as the RMS of the
        difference over the RMS of the uncached latent; None if the model's weights are random.
    alpha: for LFCache. blocks: whether BlockCache skips blocks; None if that depends on how many
        calls are computed.
    """

    area: str
    name: str
    run: Callable
    verdict: str = CACHED
    says: str = ""
    bound: float | None = 0.3
    alpha: float = 0.2
    blocks: bool | None = True
    block_settings: dict = field(default_factory=dict)

    @property
    def key(self):
        return f"{self.area}: {self.name}"


@dataclass(frozen=True)
class Case:
    """Something that happens to a graph in use. examine(bench): raises AssertionError or Skip; verdict: the result."""

    area: str
    name: str
    examine: Callable
    verdict: str
    says: str = ""

    @property
    def key(self):
        return f"{self.area}: {self.name}"


@dataclass(frozen=True)
class Outcome:
    """The result of a cell: counts over all its runs, warnings, and the error of LFCache's latent."""

    calls: int
    reused: int
    trials: int
    skipped_blocks: int
    error: float
    warnings: tuple

    @property
    def verdict(self):
        if not self.reused:
            return COMPUTED
        return CACHED if self.trials else UNTRIED


class Attached:
    """`attach` for one run of a cell: puts settings on models, and keeps the models that it returned."""

    def __init__(self, bench, lfcache=None, blockcache=None):
        self.bench = bench
        self.configs = {}
        if lfcache is not None:
            self.configs["lfcache"] = bench.config(**lfcache)
        if blockcache is not None:
            self.configs["blockcache"] = bench.block_config(**blockcache)
        self.models = []

    def __call__(self, model, after=None):
        """The model with the settings; after: the MODEL of the sampler before, for its `calibrate_from`."""
        if not self.configs:
            return model
        attachment = self.bench.attachment
        configs = dict(self.configs)
        if after is not None and "lfcache" in configs:
            configs["earlier"] = attachment.attachment_of(after)
        self.models.append(attachment.attach(model, **configs))
        return self.models[-1]

    def runs(self):
        """Report entries of all runs of the models."""
        return [
            run
            for model in self.models
            for run in self.bench.reports.runs_of(self.bench.attachment.attachment_of(model).id)
        ]


def check(cell, bench):
    """Run and check a cell; returns its Outcome, None for a Case. Raises AssertionError, or the cell's Skip."""
    with free_memory_held_still():
        if isinstance(cell, Cell):
            return compare(cell, bench)
        cell.examine(bench)
    assert left_behind(bench) == []
    return None


def free_memory_held_still():
    """Hold the reported free memory still: the host splits attention by it, which changes the rounding."""
    free = 8 << 30

    @torch.compiler.disable
    def get_free_memory(device=None, torch_free_too=False):
        return (free, free) if torch_free_too else free

    return mock.patch("comfy.model_management.get_free_memory", get_free_memory)


def compare(cell, bench):
    """The Outcome of a Cell, after checking it."""
    bare = tensors(cell.run(bench, Attached(bench)))
    off = tensors(cell.run(bench, Attached(bench, {"alpha": 0.0}, {"cache_rate": 0.0})))
    assert all(map(torch.equal, bare, off)), "with reuse off the latent is a different one"

    lfcache = {"alpha": cell.alpha}
    attached = Attached(bench, lfcache)
    cached = tensors(cell.run(bench, attached))
    again = tensors(cell.run(bench, Attached(bench, lfcache)))
    assert all(map(torch.equal, cached, again)), "two equal graphs gave two latents"
    runs = attached.runs()
    attached.models.clear()

    flash = Attached(bench, lfcache, cell.block_settings)
    both = tensors(cell.run(bench, flash))
    blocks = [run["blockcache"] for run in flash.runs()]
    flash.models.clear()
    for reference, *others in zip(bare, cached, both):
        if torch.isfinite(reference).all():
            assert all(torch.isfinite(other).all() for other in others), "the cache made a latent that is not finite"

    outcome = Outcome(
        calls=sum(run["calls"] for run in runs),
        reused=sum(run["reused"] for run in runs),
        trials=sum(run["trials"] for run in runs),
        skipped_blocks=sum(b["block_calls_skipped"] for b in blocks),
        error=max(relative_error(a, b) for a, b in zip(bare, cached)),
        warnings=tuple(dict.fromkeys(text for run in runs for text in run["warnings"])),
    )
    assert outcome.verdict == cell.verdict, outcome
    assert len(outcome.warnings) == bool(cell.says) and all(cell.says in text for text in outcome.warnings), outcome
    assert cell.bound is None or outcome.error <= cell.bound, outcome
    assert cell.blocks is None or bool(outcome.skipped_blocks) == cell.blocks, outcome
    assert left_behind(bench) == []
    return outcome


def tensors(result):
    return result if isinstance(result, (list, tuple)) else (result,)


def relative_error(reference, other):
    """RMS of the difference over the RMS of the reference."""
    return ((other - reference).float().square().mean() / reference.float().square().mean()).sqrt().item()


def left_behind(bench):
    """What a run has left behind: our objects that are still alive, and changes to the tiny model."""
    gc.collect()
    held = [type(o).__name__ for o in gc.get_objects() if type(o) in OF_A_RUN]
    network = bench.model.model.diffusion_model
    held += [f"forward of {name}" for name, module in network.named_modules() if "forward" in vars(module)]
    if "precisecache" in str(bench.model.model_options):
        held.append("options of the bare model")
    return held
