"""What the report says of EasyCache and LazyCache, and the labels of runs."""

import pytest
import torch
from PreciseCache.nodes.blockcache import PreciseCacheBlockCache
from PreciseCache.nodes.host.other_cache import OtherCache
from PreciseCache.nodes.lfcache import PreciseCacheLFCache
from PreciseCache.precisecache_core.record.report import summary_line

from testkit.host_caches import attach_easycache, attach_lazycache

STEPS = 20


def lfcache(model, preset="off", alpha=0.25, share=0.5):
    return PreciseCacheLFCache.execute(model, preset, alpha, share).result[0]


def blockcache(model):
    return PreciseCacheBlockCache.execute(model, 0.4, 3).result[0]


class Counter:
    """A MODEL's network that counts its passes."""

    def __init__(self, model):
        self.passes = 0
        self.model = model.clone()
        self.model.add_wrapper_with_key("diffusion_model", "counter", self)

    def __call__(self, executor, *args, **kwargs):
        self.passes += 1
        return executor(*args, **kwargs)


@pytest.mark.parametrize("attach, name", [(attach_easycache, "EasyCache"), (attach_lazycache, "LazyCache")])
@pytest.mark.parametrize("is_first", [True, False])
def test_lfcache_off_counts_and_times_the_calls_of_another_cache(bench, attach, name, is_first):
    bench.sample(bench.model, steps=2)  # if EasyCache's is the first run of a process, it differs from later ones
    counter = Counter(attach(bench.model, 0.2))
    alone = bench.sample(counter.model, steps=STEPS)
    assert 2 < counter.passes < STEPS
    model = lfcache(attach(bench.model, 0.2)) if is_first else attach(lfcache(bench.model), 0.2)
    assert torch.equal(bench.sample(model, steps=STEPS), alone)
    run = bench.report(model)
    reused = STEPS - counter.passes
    assert run["other_cache"] == {"name": name, "threshold": 0.2, "calls": STEPS, "reused": reused}
    assert run["label"] == f"{name} 0.2" and run["seconds"]["sampling"] > run["seconds"]["calls"] > 0
    assert summary_line(run).endswith(f"{name} reused {reused} of {STEPS}")


def test_a_cache_that_counts_nothing_has_no_number_of_reused_calls():
    class Guider:
        model_options = {"transformer_options": {"easycache": object()}}

    other = OtherCache.of(Guider)
    with other.call(Guider):
        pass
    assert other.entry(7) == {"name": "EasyCache", "threshold": None, "calls": 7, "reused": None}
    assert other.label == "EasyCache"


@pytest.mark.parametrize(
    "make, label",
    [
        (lfcache, "uncached"),
        (lambda m: lfcache(m, "base"), "LFCache base"),
        (lambda m: lfcache(m, "flash"), "LFCache flash"),
        (lambda m: lfcache(m, "budget"), "LFCache budget 0.5"),
        (lambda m: lfcache(m, "custom"), "LFCache custom 0.25"),
        (lambda m: lfcache(m, "paper"), "LFCache paper 0.25"),
        (lambda m: blockcache(lfcache(m, "turbo")), "LFCache turbo + BlockCache 0.4"),
        (lambda m: lfcache(blockcache(m), "turbo"), "BlockCache 0.4 + LFCache turbo"),
        (lambda m: lfcache(lfcache(m, "turbo"), "base"), "LFCache base"),
        (lambda m: lfcache(lfcache(m, "turbo")), "uncached"),
        (lambda m: lfcache(attach_easycache(m, 0.1), "base"), "EasyCache 0.1"),
        (lambda m: blockcache(attach_easycache(m, 0.1)), "BlockCache 0.4 + EasyCache 0.1"),
    ],
)
def test_the_label_of_a_run_names_its_caches(bench, make, label):
    model = make(bench.model)
    bench.sample(model, steps=2)
    assert bench.report(model)["label"] == label


def test_settings_that_a_program_attaches_have_a_label_too(bench):
    model = bench.blockcache(bench.lfcache(alpha=0.5))
    bench.sample(model, steps=2)
    run = bench.report(model)
    assert run["label"] == "LFCache + BlockCache" and run["other_cache"] is None


def test_beside_another_cache_no_speedup_is_estimated(bench):
    """The calls that it answers take no time, so they say nothing about what a whole call takes."""
    model = blockcache(attach_easycache(bench.model, 0.5))
    bench.sample(model, steps=STEPS)
    run = bench.report(model)
    assert run["other_cache"]["reused"] > 0 and run["blockcache"]["block_calls_skipped"] > 0
    assert run["speedup"] is None and run["saved_seconds"] is None
