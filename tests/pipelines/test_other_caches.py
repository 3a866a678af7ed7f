"""Caches of diffusers that were put on by function or come later; a compiled transformer that is offloaded."""

from pipes import (
    small_wan,
    wan,
)

import pytest
import torch
from own import entry_of

from precisecache_core.pipelines.diffusers import apply_precisecache


@pytest.mark.parametrize("how", ["first_block_cache", "pyramid_attention_broadcast"])
def test_caches_of_diffusers_that_were_put_on_by_function_are_seen(how):
    from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig, hooks

    pipe, go = wan()
    if how == "first_block_cache":
        hooks.apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.2))
    else:
        ranges = {f"{kind}_attention_timestep_skip_range": (-1, 1001) for kind in ("spatial", "cross")}
        ranges |= {f"{kind}_attention_block_skip_range": 2 for kind in ("spatial", "cross")}
        config = PyramidAttentionBroadcastConfig(**ranges, current_timestep_callback=lambda: int(pipe.current_timestep))
        hooks.apply_pyramid_attention_broadcast(pipe.transformer, config)
    plain = go()
    with apply_precisecache(pipe, "flash") as cache:
        assert torch.equal(go(), plain)
    assert entry_of(cache)["standing_aside"] == ["lfcache", "blockcache"]
    assert all("a cache of diffusers is on" in line for line in entry_of(cache)["warnings"])


def test_a_cache_of_diffusers_that_comes_later_does_not_bring_ours_back():
    from diffusers import FasterCacheConfig

    pipe, go = wan()
    plain = go()
    config = FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 950),
        unconditional_batch_skip_range=5,
        unconditional_batch_timestep_skip_range=(-1, 950),
        attention_weight_callback=lambda module: 0.3,
        tensor_format="BCFHW",
        current_timestep_callback=lambda: pipe.current_timestep,
    )
    cache = apply_precisecache(pipe)
    pipe.transformer.enable_cache(config)
    cache.remove()
    pipe.transformer.disable_cache()
    assert torch.equal(go(), plain) and cache.report()["runs"] == []


@pytest.mark.parametrize("order", ["offload first", "apply first"])
def test_a_compiled_transformer_that_is_offloaded(order):
    torch.compiler.reset()
    pipe, go = wan(transformer=small_wan(layers=1))
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    plain = go()
    if order == "offload first":
        pipe.enable_model_cpu_offload(device="cpu")
    cache = apply_precisecache(pipe)
    if order == "apply first":
        pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(3):
        go()
    assert [entry["reused"] > 0 for entry in cache.report()["runs"]] == [True] * 3
    cache.remove()
    assert torch.allclose(go(), plain, atol=1e-6) and len(cache.report()["runs"]) == 3
