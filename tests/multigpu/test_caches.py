"""With our caches Raylight samples what the host samples alone with the same caches, in every topology."""

import pytest

from testkit.model_files import RANDOM, TINY, difference
from testkit.ray_session import Topology
from testkit.raylight_caches import cached_on_ray

ULYSSES = Topology(ulysses=2)
WITHOUT_CFG = [ULYSSES, Topology(ring=2), Topology(gpus=4, ulysses=2, ring=2), Topology(ulysses=2, fsdp=True)]
WITH_CFG = [Topology(cfg=2), Topology(gpus=4, ulysses=2, cfg=2)]
LFCACHE = {"base": (("lfcache", dict(preset="base")),), "custom": (("lfcache", dict(preset="custom", alpha=0.7)),)}
FLASH = (("lfcache", dict(preset="flash")),)
TURBO = (("lfcache", dict(preset="turbo")),)
BLOCKS = (("blockcache", {}),)

# A latent whose trials have as many tokens as there are ranks, or a multiple: Raylight pads others with zero keys that
# it does not mask, which changes a trial's LFD. The guidance is low because the tiny model alone, without a cache,
# is 1e-6 from the host then, and more than 1e-5 at a cfg of 4.
TINY_RUN = dict(steps=12, seed=1, cfg=1.5, shape=(1, 16, 4, 16, 16))
LATENTS = {
    "wan2.1 vace": (1, 16, 4, 16, 16),
    "wan2.1 camera": (1, 16, 4, 16, 16),
    "flux": (1, 16, 16, 16),
    "qwen-image": (1, 16, 1, 16, 16),
    "hunyuanvideo": (1, 16, 4, 16, 16),
    "hunyuanvideo 1.5": (1, 32, 4, 8, 8),
}
NEAR = 1e-5


def decided(run):
    """What all GPUs have to agree on."""
    return {key: run[key] for key in ("decisions", "trials", "uses_trials", "blockcache", "standing_aside")}


@pytest.fixture
def on_ray(pool, model_files):
    def sample(name, caches, **how):
        return cached_on_ray(pool, pool.load(model_files[name]), model_files[name], caches, **how)

    return sample


@pytest.mark.parametrize("case", LFCACHE)
@pytest.mark.parametrize("pool", WITHOUT_CFG + WITH_CFG, indirect=True, ids=str)
def test_lfcache_in_every_topology(pool, case, on_ray, cached):
    latent, run = on_ray(TINY, LFCACHE[case], **TINY_RUN)
    expected, plain = cached(TINY, LFCACHE[case], **TINY_RUN)
    assert decided(run) == decided(plain) and run["reused"] and run["trials"] and run["uses_trials"]
    assert difference(latent, expected) < NEAR


@pytest.mark.parametrize("pool", WITHOUT_CFG, indirect=True, ids=str)
def test_both_caches_in_every_topology(pool, on_ray, cached):
    latent, run = on_ray(TINY, FLASH, **TINY_RUN)
    expected, plain = cached(TINY, FLASH, **TINY_RUN)
    assert decided(run) == decided(plain) and run["reused"] and run["blockcache"]["block_calls_skipped"]
    assert difference(latent, expected) < NEAR


@pytest.mark.parametrize("pool", WITH_CFG, indirect=True, ids=str)
def test_blockcache_stands_aside_where_a_gpu_sees_half_of_the_batch(pool, on_ray, cached):
    latent, run = on_ray(TINY, FLASH, **TINY_RUN)
    expected, plain = cached(TINY, TURBO, **TINY_RUN)
    assert run["standing_aside"] == ["blockcache"] and run["blockcache"]["block_calls_skipped"] == 0
    assert any("BlockCache: a block's inputs have a different batch size" in text for text in run["warnings"])
    assert run["decisions"] == plain["decisions"] and run["reused"]
    assert difference(latent, expected) < NEAR


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_blockcache_alone(pool, on_ray, cached):
    latent, run = on_ray(TINY, BLOCKS, **TINY_RUN)
    expected, plain = cached(TINY, BLOCKS, **TINY_RUN)
    assert decided(run) == decided(plain) and run["blockcache"]["block_calls_skipped"] and not run["reused"]
    assert difference(latent, expected) < NEAR


@pytest.mark.parametrize("caches", [LFCACHE["base"], FLASH], ids=["base", "flash"])
@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_every_architecture(pool, name, caches, on_ray, cached):
    how = dict(steps=12, shape=LATENTS[name])
    latent, run = on_ray(name, caches, **how)
    expected, plain = cached(name, caches, **how)
    assert decided(run) == decided(plain) and run["reused"] and run["trials"] and run["standing_aside"] == []
    assert caches != FLASH or run["blockcache"]["block_calls_skipped"]
    assert difference(latent, expected) < NEAR
