"""The nodes for Raylight: their order, what they refuse, whose steps they leave alone, and their reports."""

import pytest
import torch
from comfy.ldm.lumina.model import NextDiT

from testkit.model_files import TINY, difference
from testkit.ray_session import Topology
from testkit.raylight_caches import cached_on_ray, left_on_workers, reports, with_caches

ULYSSES = Topology(ulysses=2)
BASE, CUSTOM = ("lfcache", dict(preset="base")), ("lfcache", dict(preset="custom", alpha=0.7))
BLOCKS = ("blockcache", {})
HOW = dict(steps=12, cfg=1.5, seed=1, shape=(1, 16, 4, 16, 16))
NEAR = 1e-5


@pytest.fixture
def tiny(model_files):
    return model_files[TINY]


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_either_order_gives_the_same(pool, tiny):
    actors = pool.load(tiny)
    first, run = cached_on_ray(pool, actors, tiny, (CUSTOM, BLOCKS), **HOW)
    second, other = cached_on_ray(pool, actors, tiny, (BLOCKS, CUSTOM), **HOW)
    assert torch.equal(first, second) and run["reused"] and run["blockcache"]["block_calls_skipped"]
    assert (run["decisions"], run["blockcache"]) == (other["decisions"], other["blockcache"])


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_of_two_nodes_of_a_kind_the_nearer_counts(pool, tiny, cached):
    from PreciseCache.nodes.host.workers import with_caches as attach
    from PreciseCache.precisecache_core.lfcache.config import LFCacheConfig

    actors = attach(pool.load(tiny), "1", "LFCache custom", lfcache=LFCacheConfig.from_preset("custom", 0.7))
    actors = attach(actors, "2", "LFCache base", lfcache=LFCacheConfig.from_preset("base"))
    latent = pool.sample(actors, tiny, **HOW)
    (run,) = reports(pool, actors)
    expected, plain = cached(TINY, (BASE,), **HOW)
    assert run["decisions"] == plain["decisions"] != cached(TINY, (CUSTOM,), **HOW)[1]["decisions"]
    assert difference(latent, expected) < NEAR
    assert run["nodes"] == ["2"] and run["label"] == "LFCache base"
    assert any("two PreciseCache LFCache nodes follow each other" in text for text in run["warnings"])


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_a_second_model_in_the_same_workers(pool, tiny, model_files, cached):
    flux, how = model_files["flux"], dict(steps=12, shape=(1, 16, 16, 16))
    before = pool.sample(pool.load(flux), flux, **how)
    cached_on_ray(pool, pool.load(tiny), tiny, (CUSTOM, BLOCKS), **HOW)
    actors = pool.load(flux, fresh=False)
    assert torch.equal(pool.sample(actors, flux, **how), before)
    latent, run = cached_on_ray(pool, actors, flux, (BASE, BLOCKS), **how)
    expected, plain = cached("flux", (BASE, BLOCKS), **how)
    assert (run["decisions"], run["blockcache"]) == (plain["decisions"], plain["blockcache"])
    assert difference(latent, expected) < NEAR


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_a_report_is_taken_from_the_workers_once(pool, tiny):
    actors = with_caches(pool, pool.load(tiny), (CUSTOM,))
    assert reports(pool, actors) == []
    pool.sample(actors, tiny, **HOW)
    first = reports(pool, actors)
    assert len(first) == 1 and reports(pool, actors) == first and left_on_workers(pool) == [(0, 0)] * 2
    pool.sample(actors, tiny, **HOW)
    again = reports(pool, actors)
    assert [run["run"] for run in again[:1]] == [first[0]["run"]] and len({run["run"] for run in again}) == 2


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_the_custom_sampler_uses_the_caches_too(pool, tiny, cached):
    actors = with_caches(pool, pool.load(tiny), (BASE,))
    latent = pool.sample_custom(actors, tiny, steps=12, latent=torch.zeros(HOW["shape"]), cfg=1.5, seed=1)
    (run,) = reports(pool, actors)
    expected, plain = cached(TINY, (BASE,), **HOW)
    assert run["decisions"] == plain["decisions"] and difference(latent, expected) < NEAR


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_pipefusion_is_refused(pool, tiny):
    import ray
    from raylight.nodes import RayPipeFusionConfig

    actors = pool.load(tiny)
    layout = ray.get(pool.workers[0].get_parallel_dict.remote())
    try:
        pool.run(RayPipeFusionConfig, ray_actors_init=pool.actors_init, num_pipeline_patch=2, warmup_steps=1)
        for caches in ((BASE,), (BLOCKS,)):
            with pytest.raises(ValueError, match="PipeFusion.*Remove the PipeFusion node, or this one"):
                with_caches(pool, actors, caches)
    finally:
        ray.get([actor.set_parallel_dict.remote(layout) for actor in pool.workers])
    with_caches(pool, actors, (BASE,))


@pytest.mark.parametrize("value", [None, {"samples": None}, {"workers": []}, "actors"], ids=str)
@pytest.mark.parametrize("kind", [BASE, BLOCKS], ids=lambda kind: kind[0])
@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_what_does_not_come_from_raylight_is_refused(pool, kind, value):
    with pytest.raises(ValueError, match=r"ray_actors must come from Raylight, got (NoneType|dict|str)\."):
        with_caches(pool, value, (kind,))


@pytest.mark.parametrize(
    "name, settings",
    [
        ("EasyCache", dict(reuse_threshold=0.3)),
        ("TeaCache", dict(threshold=9.0, warmup_percent=0.1, retention_interval=8)),
    ],
)
@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_lfcache_stands_aside_for_raylights_own_caches(pool, tiny, name, settings):
    from raylight.comfy_extra_dist.nodes_easycache import NODE_CLASS_MAPPINGS

    window = dict(start_percent=0.1, end_percent=0.95)
    (actors,) = pool.run(NODE_CLASS_MAPPINGS[f"Ray{name}"], ray_actors=pool.load(tiny), **settings, **window)
    alone = pool.sample(actors, tiny, **HOW)
    latent, run = cached_on_ray(pool, actors, tiny, (BASE,), **HOW)
    assert torch.equal(latent, alone)
    assert run["standing_aside"] == ["lfcache"] and run["decisions"] == "C" * 12
    assert any(name in text and "two step caches spoil each other" in text for text in run["warnings"])
    assert run["other_cache"]["name"] == name and 0 < run["other_cache"]["reused"] < 12


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_blocks_that_cannot_be_reached_are_all_computed(pool, model_files):
    lumina, how = model_files["lumina 2"], dict(steps=8, shape=(1, 16, 16, 16))
    actors = pool.load(lumina)
    before = pool.sample(actors, lumina, **how)
    latent, run = cached_on_ray(pool, actors, lumina, (BLOCKS,), **how)
    assert torch.equal(latent, before)
    assert run["standing_aside"] == ["blockcache"] and run["blockcache"]["block_calls"] == 0
    assert f"BlockCache: the blocks of {NextDiT.__name__} cannot be found: computing every block" in run["warnings"]


@pytest.mark.parametrize("pool", [Topology(dp=2)], indirect=True, ids=str)
def test_replicas_decide_for_themselves(pool, tiny, cached):
    actors = with_caches(pool, pool.load(tiny), (CUSTOM,))
    expected = [cached(TINY, (CUSTOM,), **{**HOW, "seed": seed}) for seed in (0, 1)]
    latents, _ = pool.run("UnifiedParallelSampler", **lists(actors, tiny, [0, 1]))
    check_replicas(pool, actors, latents, expected)


@pytest.mark.parametrize("pool", [Topology(ulysses=0, ring=0, cfg=0)], indirect=True, ids=str)
def test_separate_samplers_decide_for_themselves(pool, tiny, cached):
    actors = with_caches(pool, pool.load(tiny), (CUSTOM,))
    expected = [cached(TINY, (CUSTOM,), **{**HOW, "seed": seed}) for seed in (0, 1)]
    # only of a list that is too long does this sampler give each GPU its own seed
    latents, _ = pool.run("DPKSamplerAdvanced", **lists(actors, tiny, [0, 1, 2]))
    check_replicas(pool, actors, latents, expected)


def lists(actors, model, seeds):
    """The inputs of Raylight's samplers for replicas, which take lists."""
    inputs = dict(
        ray_actors=actors,
        add_noise="enable",
        steps=HOW["steps"],
        cfg=HOW["cfg"],
        sampler_name="euler",
        scheduler="simple",
        positive=model.positive,
        negative=model.negative,
        latent_image={"samples": torch.zeros(HOW["shape"])},
        start_at_step=0,
        end_at_step=10000,
        return_with_leftover_noise="disable",
        denoise=1.0,
    )
    return {**{name: [value] for name, value in inputs.items()}, "noise_list": seeds}


def check_replicas(pool, actors, latents, expected):
    runs = reports(pool, actors)
    assert [run["decisions"] for run in runs] == [plain["decisions"] for _, plain in expected]
    assert len({run["decisions"] for run in runs}) == 2
    for latent, (plain, _) in zip(latents, expected):
        assert difference(latent["samples"], plain) < NEAR
