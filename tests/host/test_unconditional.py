"""Samplers that read the unconditional prediction of every call (the *_cfg_pp family)."""

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from PreciseCache.precisecache_core.lfcache.reuse import REUSES

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


def test_the_sampler_gets_the_unconditional_prediction_of_the_last_computed_call(bench):
    """Reuse repeats predictions here, so the fed value must change exactly at the computed calls."""
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
    # our wrapper is in the middle: every call passes `watch`, only what the network computes passes `count`
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
        return guider.sample(
            noise,
            torch.zeros_like(noise),
            comfy.samplers.sampler_object("euler_cfg_pp"),
            sigmas,
            disable_pbar=True,
            seed=0,
        )

    assert torch.equal(sample(bench.lfcache(alpha=0.0)), sample(bench.model))
    assert torch.isfinite(sample(bench.lfcache(alpha=1.0))).all()


@pytest.mark.parametrize("reuse", ("fitted", "corrected"))
def test_the_report_counts_what_is_kept_for_the_sampler(bench, reuse):
    model = bench.lfcache(alpha=1.0, reuse=reuse)
    bench.sample(model)
    plain = bench.report(model)["cache_bytes"]["lfcache"]
    bench.sample(model, "euler_cfg_pp")
    more = bench.report(model)["cache_bytes"]["lfcache"] - plain
    assert more == 2 * bench.noise().nbytes  # the unconditional predictions of two calls
    # and the displacement of the latent and the latent of the last computed call
    assert plain == more + (2 * bench.noise().nbytes if reuse == "corrected" else 0)


class Sampler:
    """A sampler of another pack, which reads answers by a post-cfg function of its own.

    begins: the step from which it passes the function. grows: the step at which the latent grows.
    reads: the entries of `args` that the function reads.
    """

    def __init__(self, begins=0, grows=None, reads=()):
        self.begins, self.grows, self.reads = begins, grows, reads
        self.fed = []

    def __call__(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        from comfy.model_patcher import set_model_options_post_cfg_function

        def see(args):
            for name in self.reads:
                args[name]
            self.fed.append(args["uncond_denoised"].shape)
            return args["denoised"]

        bare = extra_args["model_options"]
        for step in range(len(sigmas) - 1):
            if step == self.grows:
                x = torch.nn.functional.interpolate(x.flatten(1, 2), scale_factor=2.0).unflatten(1, x.shape[1:3])
            options = bare.copy() if step < self.begins else set_model_options_post_cfg_function(bare.copy(), see, True)
            denoised = model(x, sigmas[step] * x.new_ones([x.shape[0]]), **{**extra_args, "model_options": options})
            x = denoised + sigmas[step + 1] * (x - denoised) / sigmas[step]
        return x


def sample_with(bench, sampler, model):
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 16)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(bench.positive, bench.negative)
    guider.set_cfg(1.5)
    noise = bench.noise()
    return guider.sample(
        noise, torch.zeros_like(noise), comfy.samplers.KSAMPLER(sampler), sigmas, disable_pbar=True, seed=0
    )


@pytest.mark.parametrize("settings, fed", [({"begins": 6}, 10), ({"grows": 8}, 16), ({"reads": ["cond_scale"]}, 16)])
def test_samplers_of_other_packs_get_their_unconditional_prediction(bench, settings, fed):
    sampler = Sampler(**settings)
    model = bench.lfcache(alpha=1.0)
    assert torch.isfinite(sample_with(bench, sampler, model)).all()
    run = bench.report(model)
    assert len(sampler.fed) == fed and run["calls"] == 16 and "R" in run["decisions"][9:]


def test_a_function_is_called_once_a_call_and_its_result_is_the_samplers_answer(bench):
    """Whether the call is reused or computed, with a correction or without."""
    model, seen = bench.lfcache(alpha=1.0), []

    def result(sign):
        def sampler(wrapped, x, sigmas, extra_args=None, callback=None, disable=None):
            from comfy.model_patcher import set_model_options_post_cfg_function

            def see(args):
                seen.append((sign * args["denoised"], args["uncond_denoised"]))
                return seen[-1][0]

            options = set_model_options_post_cfg_function(extra_args["model_options"].copy(), see, True)
            seen.clear()
            for step in range(len(sigmas) - 1):
                answer = wrapped(x, sigmas[step] * x.new_ones([1]), **{**extra_args, "model_options": options})
                assert len(seen) == step + 1 and answer is seen[-1][0]
                x = sign * answer + sigmas[step + 1] * (x - seen[-1][1]) / sigmas[step]
            return x

        return sample_with(bench, sampler, model)

    expected = result(1)
    run = bench.report(model)
    assert run["reused"] > 0 and any(run["corrections"])
    assert torch.equal(result(-1), expected)


def test_a_function_that_reads_what_a_reused_call_lacks_ends_the_reuse(bench):
    sampler = Sampler(reads=["cond_denoised"])
    model = bench.lfcache(alpha=1.0)
    assert torch.equal(sample_with(bench, sampler, model), sample_with(bench, Sampler(), bench.model))
    run = bench.report(model)
    assert run["reused"] == 0 and any("cond_denoised" in warning for warning in run["warnings"])


def test_no_memory_for_the_unconditional_prediction_ends_only_the_cache(bench, monkeypatch):
    reuse = REUSES[bench.config().reuse]
    predict, calls = reuse.predict, []

    def failing(*given):
        calls.append(1)
        if len(calls) == 2:  # the first reuse asks for the guided prediction, then for the unconditional one
            raise torch.cuda.OutOfMemoryError("simulated")
        return predict(*given)

    monkeypatch.setattr(reuse, "predict", failing)
    model = bench.lfcache(alpha=1.0)
    bare = bench.sample(bench.model, "euler_cfg_pp", steps=16, cfg=1.5)
    assert torch.equal(bench.sample(model, "euler_cfg_pp", steps=16, cfg=1.5), bare)
    assert bench.report(model)["reused"] == 0
