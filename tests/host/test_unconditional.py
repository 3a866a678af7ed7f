"""Samplers that read the unconditional prediction of every call (the *_cfg_pp family)."""

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP

CFG_PP = [name for name in comfy.samplers.SAMPLER_NAMES if name.endswith("_cfg_pp")]


@pytest.mark.parametrize("sampler", CFG_PP)
def test_alpha_zero_equals_the_bare_model(bench, sampler):
    assert torch.equal(bench.sample(bench.lfcache(alpha=0.0), sampler), bench.sample(bench.model, sampler))


@pytest.mark.parametrize("sampler", CFG_PP)
def test_two_runs_agree_and_something_is_reused(bench, sampler):
    model = bench.lfcache(alpha=1.0)
    first = bench.sample(model, sampler, steps=16, cfg=1.5)
    run = bench.report(model)
    assert run["reused"] > 0 and not run["warnings"]
    assert torch.equal(first, bench.sample(model, sampler, steps=16, cfg=1.5))
    assert torch.isfinite(first).all()


def test_what_is_fed_is_the_unconditional_prediction_of_the_last_computed_call(bench):
    """With predictions repeated, the network's own answers before and after a run of reused calls tell."""
    model = bench.lfcache(alpha=1.0, reuse="prediction").clone()
    fed, computed = [], []

    def watch(executor, x, timestep, model_options=None, seed=None):
        def see(args):
            fed.append((args["uncond_denoised"] - x) / timestep[0])
            return args["denoised"]

        options = {**model_options, "sampler_post_cfg_function": [*model_options["sampler_post_cfg_function"], see]}
        return executor(x, timestep, options, seed)

    def count(executor, x, timestep, model_options=None, seed=None):
        result = executor(x, timestep, model_options, seed)
        if x.shape == bench.noise().shape:
            computed.append(len(fed))
        return result

    wrappers = model.wrappers[WrappersMP.PREDICT_NOISE]
    # ours is in the middle: what the sampler asks passes `watch`, what is computed passes `count`
    model.wrappers[WrappersMP.PREDICT_NOISE] = {"watch": [watch], **wrappers, "count": [count]}
    bench.sample(model, "euler_cfg_pp", steps=16, cfg=1.5)
    decisions = bench.report(model)["decisions"]
    assert len(fed) == 16 and len(computed) == decisions.count("C") < 16
    for i in range(1, 16):
        if decisions[i] == "R":
            torch.testing.assert_close(fed[i], fed[i - 1], rtol=1e-3, atol=1e-4)
        else:
            assert not torch.allclose(fed[i], fed[i - 1], rtol=1e-3, atol=1e-4)


def test_a_model_without_an_unconditional_prediction_is_sampled(bench):
    from comfy_extras import nodes_custom_sampler as custom

    def sample(model):
        guider = custom.Guider_Basic(model)
        guider.set_conds(bench.positive)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 12)
        noise = bench.noise()
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler_cfg_pp"), sigmas,
                             disable_pbar=True, seed=0)

    assert torch.equal(sample(bench.lfcache(alpha=0.0)), sample(bench.model))
    assert torch.isfinite(sample(bench.lfcache(alpha=1.0))).all()


def test_the_report_counts_what_is_kept_for_the_sampler(bench):
    model = bench.lfcache(alpha=1.0)
    bench.sample(model)
    plain = bench.report(model)["cache_bytes"]["lfcache"]
    bench.sample(model, "euler_cfg_pp")
    assert bench.report(model)["cache_bytes"]["lfcache"] == 2 * plain
