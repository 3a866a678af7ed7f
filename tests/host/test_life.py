"""Errors, interrupts and repeated use leave nothing behind."""

import gc

import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from PreciseCache.nodes.host.sampler_run import SamplerRun
from PreciseCache.precisecache_core.lfcache.run import LFCacheRun
from PreciseCache.precisecache_core.lfcache.stage import Stage
from PreciseCache.precisecache_core.record.report import jsonable


def fail_at(patcher, call, error):
    """A clone whose network raises `error` at its n-th full-size evaluation."""
    patcher = patcher.clone()
    seen = [0]

    def network(executor, x, *args, **kwargs):
        if x.shape[-1] == 8:
            seen[0] += 1
            if seen[0] == call:
                raise error
        return executor(x, *args, **kwargs)

    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "fail", network)
    return patcher


def held_runs():
    """Objects of runs that are still alive: SamplerRun, LFCacheRun and Stage."""
    gc.collect()
    return [o for o in gc.get_objects() if isinstance(o, (SamplerRun, LFCacheRun, Stage))]


@pytest.mark.parametrize("call", (1, 3, 5))
@pytest.mark.parametrize("kind", (RuntimeError, comfy.model_management.InterruptProcessingException))
def test_an_error_passes_through_and_leaves_nothing(bench, call, kind):
    model = fail_at(bench.lfcache(alpha=0.3), call, kind("broken block"))
    options = str(model.model_options)
    with pytest.raises(kind) as caught:
        bench.sample(model, steps=12)
    # the traceback still holds our objects, but they no longer hold a tensor
    assert all(run.cache_bytes == 0 for run in held_runs() if hasattr(run, "cache_bytes"))
    del caught
    assert str(model.model_options) == options
    run = bench.report(model)
    assert run["computed"] == call - 1 and run["calls"] < 12
    assert torch.equal(bench.sample(bench.lfcache(alpha=0.0), steps=12), bench.sample(bench.model, steps=12))


def test_nothing_is_held_after_a_run(bench):
    bench.sample(bench.lfcache(alpha=1.0))
    assert held_runs() == []


def test_the_node_returns_a_clone_and_leaves_its_input_alone(bench):
    before = str(bench.model.model_options)
    model = bench.lfcache(alpha=1.0)
    assert model is not bench.model and model.model is bench.model.model
    assert str(bench.model.model_options) == before
    assert bench.attachment.attachment_of(bench.model) is None


def test_attaching_twice_equals_attaching_once(bench):
    once = bench.lfcache(alpha=1.0)
    twice = bench.lfcache(bench.lfcache(alpha=0.2), alpha=1.0)
    assert torch.equal(bench.sample(once), bench.sample(twice))
    assert len(bench.reports.runs_of(bench.attachment.attachment_of(twice).id)) == 1
    assert bench.report(twice)["alpha"] == 1.0


def test_a_clone_of_the_cached_model_is_cached(bench):
    model = bench.lfcache(alpha=1.0).clone()
    bench.sample(model)
    assert bench.report(model)["reused"] > 0


def test_a_failing_trial_ends_the_trials_not_the_reuse(bench):
    model = bench.lfcache(alpha=1.0).clone()

    def network(executor, x, *args, **kwargs):
        if x.shape[-1] < 8:
            raise RuntimeError("small latents are not for me")
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "picky", network)
    assert torch.isfinite(bench.sample(model)).all()
    run = bench.report(model)
    assert run["reused"] > 0 and run["trials"] == 0
    assert len(run["warnings"]) == 1 and "small latents are not for me" in run["warnings"][0]


def test_nan_from_every_trial_ends_the_trials_not_the_reuse(bench):
    model = bench.lfcache(alpha=10.0).clone()

    def network(executor, x, *args, **kwargs):
        out = executor(x, *args, **kwargs)
        return out * float("nan") if x.shape[-1] < 8 else out

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "nan", network)
    assert torch.isfinite(bench.sample(model)).all()
    run = bench.report(model)
    assert run["decisions"].startswith("CCCCRRRR") and len(run["warnings"]) == 2
    assert run["trials"] == 4 and jsonable(run)["lfd"][:4] == [None] * 4


def test_the_guider_gets_its_conditioning_and_options_back(bench):
    import comfy.sampler_helpers
    import comfy.samplers

    model = bench.lfcache(alpha=1.0)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(bench.positive, bench.negative)
    guider.set_cfg(4.0)
    options = guider.model_options
    noise = bench.noise()
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 10)
    guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)
    assert guider.model_options is options and "precisecache" not in options["transformer_options"]
    assert guider.original_conds["positive"][0]["cross_attn"] is bench.positive[0][0]


def test_the_kept_reports_are_bounded_and_hold_no_tensor(bench):
    for number in range(bench.reports.LIMIT + 5):
        bench.reports.record("someone", {"number": number})
    assert [r["number"] for r in bench.reports.runs_of("someone")] == list(range(5, bench.reports.LIMIT + 5))
    model = bench.lfcache(alpha=1.0)
    bench.sample(model)
    assert not any(isinstance(v, torch.Tensor) for v in bench.report(model).values())
