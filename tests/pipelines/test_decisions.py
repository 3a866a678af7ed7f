"""The bundled model through WanPipeline decides as the core's own loop does."""

from pipes import GUIDANCE, embeddings, tiny_wan

import pytest
import torch

from precisecache_core import BlockCacheConfig, LFCacheConfig, guided, sample_flow
from precisecache_core.pipelines.diffusers import apply_precisecache
from precisecache_core.tiny import bundle
from precisecache_core.tiny.prompts import encode_prompt
from testkit.diffusers_model import sizes_of

SIZE = 8  # of the latent
PRESETS = [("base", {}), ("custom", {"alpha": 0.5}), ("flash", {})]


@pytest.fixture(scope="module")
def tiny():
    return tiny_wan(SIZE)


@pytest.fixture(scope="module")
def plain(tiny):
    return tiny[1]()


def core(sigmas, lfcache, blockcache=None):
    """The same clip in the core's own loop."""
    model = bundle.load_model().float()
    denoise = guided(model, encode_prompt("circle", "red", "left"), encode_prompt(), GUIDANCE)
    return sample_flow(
        denoise, embeddings(0, 1, sizes_of().in_dim, 4, SIZE, SIZE), sigmas, lfcache, blockcache, model.blocks
    )


def test_without_caches_both_loops_give_the_same_clip(tiny, plain):
    assert torch.allclose(core(tiny[0].scheduler.sigmas, None)[0], plain, atol=1e-4)


@pytest.mark.parametrize("preset, options", PRESETS)
def test_decisions_trials_and_agreement_are_those_of_the_cores_own_loop(tiny, plain, preset, options):
    pipe, go = tiny
    with apply_precisecache(pipe, preset, **options) as cache:
        latent = go()
    (entry,) = cache.report()["runs"]
    lfcache = LFCacheConfig.from_preset(preset, options.get("alpha"))
    expected, own = core(pipe.scheduler.sigmas, lfcache, BlockCacheConfig() if preset == "flash" else None)
    assert "R" in own["decisions"] and own["trials"]
    for name in ("decisions", "reasons", "trials", "trial_agreement", "latent_shape", "uses_trials", "warnings"):
        assert entry[name] == pytest.approx(own[name]), name
    assert entry["sigmas"] == pytest.approx(own["sigmas"])
    assert torch.allclose(latent, expected, atol=1e-4)
    assert not torch.allclose(latent, plain, atol=1e-3)  # else the comparison would say nothing


def test_blocks_are_ranked_and_skipped_as_in_the_cores_own_loop(tiny):
    """The pipeline calls the model once for each of the two branches, the core once for both."""
    pipe, go = tiny
    blocks = BlockCacheConfig(warmup=3, start_percent=0.0)
    with apply_precisecache(pipe, "off", blockcache=blocks) as cache:
        latent = go()
    mine = cache.report()["runs"][0]["blockcache"]
    expected, entry = core(pipe.scheduler.sigmas, None, blocks)
    own = entry["blockcache"]
    assert mine["pivotal"] == own["pivotal"] and own["block_calls_skipped"]
    assert mine["block_calls_skipped"] == 2 * own["block_calls_skipped"]
    assert torch.allclose(latent, expected, atol=1e-4)


def test_the_weights_of_the_guidance_do_not_depend_on_its_scale(tiny):
    """A trial mixes the branches as the pipeline does: another scale decides as the core does with that scale."""
    pipe, go = tiny
    with apply_precisecache(pipe, "base") as cache:
        go(guidance_scale=1.5)
    model = bundle.load_model().float()
    denoise = guided(model, encode_prompt("circle", "red", "left"), encode_prompt(), 1.5)
    noise = embeddings(0, 1, sizes_of().in_dim, 4, SIZE, SIZE)
    _, own = sample_flow(denoise, noise, pipe.scheduler.sigmas, LFCacheConfig.from_preset("base"))
    entry = cache.report()["runs"][0]
    assert (entry["decisions"], entry["trials"]) == (own["decisions"], own["trials"])
    assert entry["trial_agreement"] == pytest.approx(own["trial_agreement"])
