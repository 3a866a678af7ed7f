"""After a run with our caches nothing of them is left on Raylight's workers, whose models outlive the graph."""

import dataclasses
import threading

import pytest
import torch

from testkit.model_files import TINY
from testkit.ray_session import Topology
from testkit.raylight_caches import cached_on_ray, left_on_workers, reports, with_caches

ULYSSES = Topology(ulysses=2)
BASE, FLASH = (("lfcache", dict(preset="base")),), (("lfcache", dict(preset="flash")),)
OFF = (("lfcache", dict(preset="off")),)
HOW = dict(steps=10, cfg=1.5, seed=1, shape=(1, 16, 4, 16, 16))


@pytest.fixture
def tiny(model_files):
    return model_files[TINY]


@pytest.mark.parametrize("pool", [ULYSSES, Topology(ulysses=2, fsdp=True)], indirect=True, ids=str)
def test_a_graph_without_our_nodes_samples_as_before(pool, tiny):
    actors = pool.load(tiny)
    before = pool.sample(actors, tiny, **HOW)
    cached, run = cached_on_ray(pool, actors, tiny, FLASH, **HOW)
    assert run["reused"] and run["blockcache"]["block_calls_skipped"] and not torch.equal(cached, before)
    assert left_on_workers(pool) == [(0, 0)] * 2
    assert torch.equal(pool.sample(actors, tiny, **HOW), before)
    assert torch.equal(pool.sample(pool.load(tiny, fresh=False), tiny, **HOW), before)


@pytest.mark.parametrize(
    "caches",
    [OFF, (*BASE, *OFF), (("blockcache", dict(mode="off")),), (("blockcache", dict(mode="off")), *OFF)],
    ids=["off", "base, off", "blockcache off", "both off"],
)
@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_off_computes_everything_and_reports_it(pool, tiny, caches):
    actors = pool.load(tiny)
    before = pool.sample(actors, tiny, **HOW)
    latent, run = cached_on_ray(pool, actors, tiny, caches, **HOW)
    assert torch.equal(latent, before)
    assert run["decisions"] == "C" * 10 and run["blockcache"] is None and run["standing_aside"] == run["warnings"] == []


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_off_after_flash_leaves_the_steps_and_skips_no_block(pool, tiny):
    _, run = cached_on_ray(pool, pool.load(tiny), tiny, (*FLASH, ("blockcache", dict(mode="off"))), **HOW)
    assert run["reused"] and run["blockcache"] is None


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_after_an_error_in_the_sampler(pool, tiny):
    import ray

    actors = pool.load(tiny)
    before = pool.sample(actors, tiny, **HOW)
    cached = with_caches(pool, actors, FLASH)
    broken = dataclasses.replace(tiny, positive=[[torch.zeros(1, 4, 7), {}]])  # no text of this model's width
    with pytest.raises(ray.exceptions.RayTaskError, match="7"):
        pool.sample(cached, broken, **HOW)
    assert torch.equal(pool.sample(actors, tiny, **HOW), before)
    assert left_on_workers(pool) == [(0, 0)] * 2
    (failed,) = reports(pool, cached)
    assert "the run failed with RuntimeError after 0 calls" in failed["warnings"]
    _, run = cached_on_ray(pool, actors, tiny, FLASH, **HOW)
    assert run["reused"] and not any("failed" in text for text in run["warnings"])


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_after_an_argument_that_cannot_be_sent(pool, tiny):
    actors = pool.load(tiny)
    before = pool.sample(actors, tiny, **HOW)
    cached = with_caches(pool, actors, BASE)
    with pytest.raises(TypeError, match="[Cc]ould not serialize"):
        pool.sample(cached, dataclasses.replace(tiny, positive=threading.Lock()), **HOW)
    assert torch.equal(pool.sample(actors, tiny, **HOW), before)
    pool.sample(cached, tiny, **HOW)
    (run,) = reports(pool, cached)
    assert run["reused"]
