"""A rank of Raylight that measures something else than the others: all of them still do the same."""

import contextlib
import math

import pytest

from testkit.model_files import TINY
from testkit.ray_session import Topology
from testkit.raylight_caches import cached_on_ray, runs_of_every_rank

ULYSSES = Topology(ulysses=2)
HOW = dict(steps=12, cfg=1.5, seed=1, shape=(1, 16, 4, 16, 16))
CUSTOM, BLOCKS = (("lfcache", dict(preset="custom", alpha=0.7)),), (("blockcache", {}),)
LOW_BAND = ("lfcache.latent.frequency", "LowBand", "difference")
SCORE = ("blockcache.block_pass", None, "squared_norm")


@contextlib.contextmanager
def last_rank_measures(pool, where, factor):
    """While the last rank's measure is multiplied by a number. where: (module of the core, class or None, function)."""

    def disturb(worker, where, factor):
        import importlib

        if worker.local_rank != 1:
            return
        module, owner, name = where
        holder = importlib.import_module(f"precisecache_in_worker.precisecache_core.{module}")
        holder = getattr(holder, owner) if owner else holder
        measure = getattr(holder, name)
        measure = getattr(measure, "undisturbed", measure)

        def disturbed(*args):
            return measure(*args) * factor

        disturbed.undisturbed = measure
        setattr(holder, name, measure if factor == 1 else disturbed)

    pool.on_every_worker(disturb, where, factor)
    try:
        yield
    finally:
        pool.on_every_worker(disturb, where, 1)


@pytest.mark.parametrize("factor", [0.9, 1.1, math.nan])
@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_other_differences_on_one_rank(pool, model_files, factor):
    tiny = model_files[TINY]
    actors = pool.load(tiny)
    _, usual = cached_on_ray(pool, actors, tiny, CUSTOM, **HOW)
    with last_rank_measures(pool, LOW_BAND, factor):
        latent, (first, last) = runs_of_every_rank(pool, actors, tiny, CUSTOM, **HOW)
    assert first["decisions"] == last["decisions"] and first["lfd"] == last["lfd"] and latent.isfinite().all()
    # the largest of what the ranks measured counts; no call is reused by what one of them cannot measure
    assert math.isnan(factor) or first["lfd"][1:] == pytest.approx([max(factor, 1) * lfd for lfd in usual["lfd"][1:]])
    assert first["reused"] == (0 if math.isnan(factor) else usual["reused"])
    _, after = cached_on_ray(pool, actors, tiny, CUSTOM, **HOW)
    assert after["decisions"] == usual["decisions"] and after["reused"]


@pytest.mark.parametrize("factor", [1e6, -1.0, math.nan])
@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_other_scores_on_one_rank(pool, model_files, factor):
    tiny = model_files[TINY]
    actors = pool.load(tiny)
    _, usual = cached_on_ray(pool, actors, tiny, BLOCKS, **HOW)
    with last_rank_measures(pool, SCORE, factor):
        latent, (first, last) = runs_of_every_rank(pool, actors, tiny, BLOCKS, **HOW)
    assert first["blockcache"] == last["blockcache"] != usual["blockcache"] and latent.isfinite().all()
