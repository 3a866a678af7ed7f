"""Every pipeline with random weights: exact where nothing is reused, cached where it should be."""

from pipes import cogvideox, embeddings, euler, hunyuan, small_wan, wan, wan_image, wan_two

import pytest
import torch
from undescribed import flux, ltx

from precisecache_core import BlockCacheConfig
from precisecache_core.pipelines.diffusers import apply_precisecache

KNOWN = {
    "wan": wan,
    "wan without guidance": lambda: _with(wan(), guidance_scale=1.0),
    "wan 2.2": wan_two,
    "wan image": wan_image,
    "hunyuan": hunyuan,
    "hunyuan true cfg": lambda: hunyuan(true_cfg=4.0),
    "cogvideox ddim": cogvideox,
    "cogvideox dpm": lambda: cogvideox("dpm"),
    "cogvideox ddim rotary": lambda: cogvideox(rotary=True),
    "cogvideox dpm rotary": lambda: cogvideox("dpm", rotary=True),
    "cogvideox without guidance": lambda: cogvideox(guidance=1.0),
    "cogvideox 1.5": lambda: cogvideox(rotary=True, patch_size_t=2),
}
OTHERS = {"ltx": ltx, "ltx without guidance": lambda: ltx(guidance=1.0), "flux": flux}
DYNAMIC = {"use_dynamic_cfg": True}


def _with(made, **changes):
    pipe, go = made
    return pipe, lambda **more: go(**changes, **more)


def sampled(made, preset, **options):
    """(the latent without caches, the latent with them, the report's entry)."""
    pipe, go = made
    plain = go(generator=torch.Generator().manual_seed(0))
    with apply_precisecache(pipe, preset, **options) as cache:
        latent = go(generator=torch.Generator().manual_seed(0))
    (entry,) = cache.report()["runs"]
    return plain, latent, entry


@pytest.mark.parametrize("name", [*KNOWN, *OTHERS])
def test_alpha_0_and_cache_rate_0_are_bit_equal(name):
    make = {**KNOWN, **OTHERS}[name]
    blocks = BlockCacheConfig(cache_rate=0.0, start_percent=0.0) if name in KNOWN else None
    plain, latent, entry = sampled(make(), "custom", alpha=0.0, blockcache=blocks)
    assert torch.equal(latent, plain)
    assert entry["decisions"] == "C" * 12
    assert entry["trials"] == (12 if name in KNOWN else 0)
    if blocks:
        assert entry["blockcache"]["block_calls"] and not entry["blockcache"]["block_calls_skipped"]


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_pipeline_is_cached_with_trials(name):
    plain, latent, entry = sampled(KNOWN[name](), "base")
    assert entry["reused"] >= 2 and entry["uses_trials"] and entry["trials"] == 12
    assert entry["warnings"] == [] and entry["standing_aside"] == []
    assert not torch.equal(latent, plain) and (latent - plain).norm() < plain.norm()


@pytest.mark.parametrize("name", KNOWN)
def test_flash_skips_blocks_and_whole_steps(name):
    plain, latent, entry = sampled(KNOWN[name](), "flash", blockcache=BlockCacheConfig(warmup=2, start_percent=0.0))
    assert entry["blockcache"]["blocks"] == 4 and entry["blockcache"]["block_calls_skipped"]
    assert entry["reused"] and entry["standing_aside"] == [] and not torch.equal(latent, plain)


@pytest.mark.parametrize("name", OTHERS)
def test_a_pipeline_that_nobody_described_is_cached_without_trials_and_says_so(name):
    plain, latent, entry = sampled(OTHERS[name](), "base")
    assert entry["reused"] >= 2 and entry["trials"] == 0 and not entry["uses_trials"]
    (line,) = entry["warnings"]
    assert "is not known well enough to shrink its inputs: reuse is planned without trials" in line
    assert entry["latent_shape"] == list(plain.shape)
    assert not torch.equal(latent, plain) and (latent - plain).norm() < plain.norm()


def test_blocks_that_nobody_described_are_computed_and_one_line_says_so():
    _, _, entry = sampled(flux(), "flash")
    assert entry["standing_aside"] == ["blockcache"] and entry["reused"]
    assert any("blocks of FluxTransformer2DModel are not known" in line for line in entry["warnings"])


@pytest.mark.parametrize("make", [wan, hunyuan, cogvideox, ltx])
def test_a_batch_of_two_is_two_clips(make):
    plain, latent, entry = sampled(make(batch=2), "custom", alpha=0.0)
    assert len(plain) == 2 and torch.equal(latent, plain) and entry["latent_shape"][0] == 2
    plain, latent, entry = sampled(make(batch=2), "base")
    assert entry["reused"] and entry["standing_aside"] == []
    for one, reference in zip(latent, plain):
        assert 0 < (one - reference).norm() < reference.norm()


@pytest.mark.parametrize("make", [wan, hunyuan, cogvideox])
def test_bfloat16(make):
    pipe, go = make()
    pipe.transformer.to(torch.bfloat16)
    texts = {
        name: embeddings(seed, 1, 4, 8).bfloat16()
        for name, seed in (("prompt_embeds", 1), ("negative_prompt_embeds", 2))
    }
    if make is hunyuan:
        texts["pooled_prompt_embeds"] = embeddings(6, 1, 8).bfloat16()
    if make is cogvideox:
        latents = embeddings(0, 1, 3, 4, 8, 8).bfloat16()
        texts["latents"] = latents
    made = _with((pipe, go), **texts)
    plain, latent, entry = sampled(made, "custom", alpha=0.0)
    assert (
        torch.equal(latent, plain) and entry["trials"] == 12 and entry["warnings"] == ["alpha is 0: nothing is reused"]
    )
    plain, latent, entry = sampled(made, "base")
    assert entry["reused"] and entry["uses_trials"] and entry["warnings"] == []
    assert latent.isfinite().all() and 0 < (latent - plain).float().norm() < plain.float().norm()


@pytest.mark.parametrize("name", ["unipc", "dpm", "euler", "heun"])
def test_wan_is_cached_with_other_schedulers(name):
    from diffusers import DPMSolverMultistepScheduler, FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler

    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 2.0}
    schedulers = {
        "unipc": lambda: UniPCMultistepScheduler(**flow),
        "dpm": lambda: DPMSolverMultistepScheduler(**flow),
        "euler": euler,
        "heun": lambda: FlowMatchHeunDiscreteScheduler(shift=2.0),
    }
    plain, latent, entry = sampled(wan(scheduler=schedulers[name]()), "custom", alpha=0.0)
    assert torch.equal(latent, plain)
    plain, latent, entry = sampled(wan(scheduler=schedulers[name]()), "base")
    assert entry["reused"] and entry["trials"] and 0 < (latent - plain).norm() < plain.norm()
    sigmas = entry["sigmas"]
    assert sigmas[0] == pytest.approx(1.0, abs=0.01) and sigmas == sorted(sigmas, reverse=True)


def test_the_noise_levels_of_ddim_are_those_of_its_training():
    pipe, go = cogvideox()
    _, _, entry = sampled((pipe, go), "custom", alpha=0.0)
    kept = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps].double()
    assert entry["sigmas"][1:] == pytest.approx(((1 - kept) / kept).sqrt().tolist()[1:], rel=1e-4)
    assert entry["sigmas"][0] == 4096  # of a schedule that begins without signal


def test_guidance_that_changes_from_step_to_step_is_right():
    made = _with(cogvideox(), **DYNAMIC)
    plain, latent, entry = sampled(made, "custom", alpha=0.0)
    assert torch.equal(latent, plain) and entry["trials"]
    _, _, entry = sampled(made, "base")
    assert entry["reused"] and entry["warnings"] == []


# --- Wan 2.2 ---


@pytest.mark.parametrize("make, ratio", [(wan_two, 0.8), (wan_image, 0.5)])
@pytest.mark.parametrize("preset, options", [("base", {}), ("custom", {"alpha": 3.0}), ("flash", {})])
def test_nothing_is_reused_across_the_boundary_of_two_transformers(make, ratio, preset, options):
    pipe, go = make()
    calls = []
    for module in (pipe.transformer, pipe.transformer_2):
        module.proj_out.register_forward_hook(lambda module, *_: calls.append(module))
    _, _, entry = sampled((pipe, go), preset, **options)
    first_below = next(index for index, sigma in enumerate(entry["sigmas"]) if sigma < ratio)
    assert 0 < first_below < 11 and entry["decisions"][first_below] == "C"
    assert "R" in entry["decisions"]
    assert {id(module) for module in calls} == {id(pipe.transformer.proj_out), id(pipe.transformer_2.proj_out)}


def test_trials_run_on_the_transformer_of_their_noise_level():
    pipe, go = wan_two()
    seen = []
    for name in ("transformer", "transformer_2"):
        getattr(pipe, name).register_forward_pre_hook(
            lambda module, args, kwargs, name=name: seen.append((name, kwargs["hidden_states"].shape[-1])),
            with_kwargs=True,
        )
    with apply_precisecache(pipe, "custom", alpha=0.0) as cache:
        go()
    sigmas = cache.report()["runs"][0]["sigmas"]
    expected = ["transformer" if sigma >= 0.8 else "transformer_2" for sigma in sigmas]
    small = [name for name, size in seen if size < 8]
    assert small == [name for name in expected for _ in range(2)]
    assert [name for name, size in seen if size == 8] == small


def test_one_transformer_of_wan_2_2_may_be_missing():
    plain, latent, entry = sampled(wan(transformer=None, transformer_2=small_wan(), boundary_ratio=1.1), "base")
    assert entry["reused"] and entry["trials"] == 12 and entry["warnings"] == []


def test_a_timestep_for_each_token():
    """Wan 2.2 5B."""
    plain, latent, entry = sampled(wan(expand_timesteps=True), "custom", alpha=0.0)
    assert torch.equal(latent, plain) and entry["trials"] == 12
    _, _, entry = sampled(wan(expand_timesteps=True), "base")
    assert entry["reused"] and entry["uses_trials"] and entry["warnings"] == []


def test_an_image_inside_the_latent_is_cached_without_trials():
    """Wan 2.2 5B from an image."""
    pipe, go = wan_image(in_channels=4, expand_timesteps=True, boundary_ratio=None, transformer_2=None)
    plain, latent, entry = sampled((pipe, go), "custom", alpha=0.0)
    assert torch.equal(latent, plain)
    _, _, entry = sampled((pipe, go), "base")
    assert entry["reused"] and entry["trials"] == 0
    assert entry["warnings"] == [
        "this model keeps clean frames inside the noised latent: reuse is planned without trials"
    ]
