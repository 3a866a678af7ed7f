"""With reuse off, LFCache gives exactly the bare model's latent; with reuse on, one that is close and repeatable."""

import pytest
import torch

SAMPLERS = ("euler", "uni_pc", "dpmpp_2m", "heun", "er_sde")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_alpha_zero_equals_the_bare_model(bench, sampler):
    model = bench.lfcache(alpha=0.0)
    assert torch.equal(bench.sample(model, sampler), bench.sample(bench.model, sampler))
    run = bench.report(model)
    assert run["reused"] == 0 and run["computed"] == run["calls"] == run["trials"]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("reuse", ("fitted", "corrected", "taylor", "prediction", "residual"))
def test_two_runs_agree_and_something_is_reused(bench, sampler, reuse):
    model = bench.lfcache(alpha=2.0, reuse=reuse)
    first = bench.sample(model, sampler)
    assert torch.equal(first, bench.sample(model, sampler))
    assert torch.isfinite(first).all()
    assert bench.report(model)["reused"] > 0


@pytest.mark.parametrize("sampler", ("heun", "dpm_2"))
def test_calls_and_steps_are_both_counted(bench, sampler):
    model = bench.lfcache(alpha=1.0)
    bench.sample(model, sampler, steps=10)
    run = bench.report(model)
    assert run["steps"] == 10 and run["calls"] == 19 == len(run["decisions"]) == len(run["lfd"]) == len(run["sigmas"])


def test_reuse_stays_close_to_the_uncached_run(bench):
    noise = bench.noise((1, 16, 4, 16, 16))
    bare = bench.sample(bench.model, steps=30, noise=noise)
    model = bench.lfcache(alpha=0.5)
    cached = bench.sample(model, steps=30, noise=noise)
    assert bench.report(model)["reused"] >= 10
    error = (bench.vae.decode(cached) - bench.vae.decode(bare)).square().mean()
    assert error < 10**-2.5  # 25 dB; 35 dB and more were measured, and unrelated clips have 10 dB


def test_inputs_are_never_written_to(bench):
    noise, latent = bench.noise(), bench.noise(seed=1)
    before = noise.clone(), latent.clone()
    bench.sample(bench.lfcache(alpha=1.0), noise=noise, latent=latent, denoise=0.9, steps=12)
    assert torch.equal(noise, before[0]) and torch.equal(latent, before[1])


@pytest.mark.parametrize("cfg", (1.0, 4.0))
def test_alpha_zero_with_guidance_on_and_off(bench, cfg):
    model = bench.lfcache(alpha=0.0)
    assert torch.equal(bench.sample(model, cfg=cfg), bench.sample(bench.model, cfg=cfg))


def test_a_batch_of_two_is_decided_together(bench):
    noise = bench.noise((2, 16, 2, 8, 8))
    model = bench.lfcache(alpha=0.0)
    assert torch.equal(bench.sample(model, noise=noise), bench.sample(bench.model, noise=noise))
    model = bench.lfcache(alpha=2.0)
    assert bench.sample(model, noise=noise).shape == noise.shape
    assert bench.report(model)["reused"] > 0


def test_cpu_cache_gives_the_same_latent(bench):
    first, second = (bench.lfcache(alpha=1.0, cache_device=d) for d in ("model", "cpu"))
    assert torch.equal(bench.sample(first), bench.sample(second))


# uni_pc on larger latents is the deterministic sampler whose moves derivatives explain least
@pytest.mark.parametrize(
    "sampler, is_corrected",
    [
        *((name, True) for name in ("euler", "uni_pc", "dpmpp_2m", "deis")),
        *((name, False) for name in ("lcm", "er_sde", "dpmpp_2m_cfg_pp")),
    ],
)
def test_samplers_that_move_the_latent_by_derivatives_are_corrected(bench, sampler, is_corrected):
    model = bench.lfcache(bench.shifted(2.0), share=0.4)
    bench.sample(model, sampler, steps=30, noise=bench.noise((1, 16, 4, 16, 16)))
    run = bench.report(model)
    # every computed call after a reused one shows something, until the end of the run
    shown = [c for c in run["corrections"] if c is not None]
    assert run["reused"] > 10 and (all(shown) and any(shown) if is_corrected else not any(shown)), shown
