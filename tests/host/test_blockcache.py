"""BlockCache in the host: exactness, guidance, context windows, other packs, and cleaning up."""

import gc

import comfy.context_windows
import comfy.model_base
import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from PreciseCache.nodes.blockcache import PreciseCacheBlockCache
from PreciseCache.precisecache_core.blockcache.run import BlockCacheRun

from testkit.frozen import frozen_answers

SAMPLERS = ("euler", "uni_pc", "dpmpp_2m", "heun", "er_sde")
EVERY = {"alpha": 0.0}  # LFCache that reuses no step


def watch(patcher, seen):
    """A clone that appends the result of each call to `seen`."""
    patcher = patcher.clone()

    def predict(executor, x, *args, **kwargs):
        seen.append(executor(x, *args, **kwargs))
        return seen[-1]

    patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "watch", predict)
    return patcher


def sample_frozen(bench, model, noise=None, **kwargs):
    """The tiny model's answers to the same x, sigma and conditioning, call after call."""
    noise = bench.noise() if noise is None else noise
    return frozen_answers(model, noise, bench.positive, bench.negative, **kwargs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rate_zero_equals_the_bare_model(bench, sampler):
    model = bench.blockcache(cache_rate=0.0)
    assert torch.equal(bench.sample(model, sampler), bench.sample(bench.model, sampler))
    assert bench.report(model)["blockcache"]["block_calls_skipped"] == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("storage", ("merged", "per_block"))
def test_two_runs_agree_and_blocks_are_skipped(bench, sampler, storage):
    model = bench.blockcache(storage=storage)
    first = bench.sample(model, sampler, steps=12)
    assert torch.equal(first, bench.sample(model, sampler, steps=12))
    assert torch.isfinite(first).all()
    run = bench.report(model)
    assert run["decisions"] == "C" * run["calls"] and run["blockcache"]["blocks"] == 16
    assert run["blockcache"]["block_calls_skipped"] > 0 and run["cache_bytes"]["blockcache"] > 0
    assert {len(p) for p in run["blockcache"]["pivotal"]} == {10}  # 6 of 16 are skipped


@pytest.mark.parametrize("storage", ("merged", "per_block"))
def test_frozen_inputs_give_the_computed_answer(bench, storage):
    model = bench.blockcache(storage=storage)
    answers = sample_frozen(bench, model)
    assert bench.report(model)["blockcache"]["block_calls_skipped"] > 0
    for answer in answers[1:]:
        assert (answer - answers[0]).abs().max() < 1e-5 * answers[0].abs().max()


def test_storages_agree_for_the_same_blocks(bench):
    # per_block ranks in the refresh itself, merged in the call before; both calls have the same input
    answers, pivotal = [], []
    for storage in ("merged", "per_block"):
        model = bench.blockcache(storage=storage)
        answers.append(sample_frozen(bench, model, calls=8, turned=3)[3])  # the first call that skips
        pivotal.append(bench.report(model)["blockcache"]["pivotal"][0])
    bare = sample_frozen(bench, bench.model, calls=8, turned=3)[3]
    merged, per_block = answers
    assert pivotal[0] == pivotal[1]
    assert (merged - per_block).abs().max() < 1e-5 * bare.abs().max()
    assert (merged - bare).abs().max() > 1e-3 * bare.abs().max()


def test_batched_guidance_equals_split_guidance(bench, monkeypatch):
    model = bench.blockcache()
    together = bench.sample(model, steps=12)
    sets = bench.report(model)["blockcache"]["pivotal"]
    # the host batches the branches only if they fit in memory
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: 1e18)
    apart = bench.sample(model, steps=12)
    run = bench.report(model)
    assert run["blockcache"]["pivotal"] == sets
    assert run["blockcache"]["block_calls"] == 2 * 12 * 16
    # another batch size rounds differently in float32, over twelve steps at cfg 4
    assert (together - apart).abs().max() < 2e-4 * together.abs().max()


@pytest.mark.parametrize("block_first", (True, False))
def test_both_nodes_in_either_order(bench, block_first):
    if block_first:
        model = bench.lfcache(bench.blockcache(), alpha=0.5)
    else:
        model = bench.blockcache(bench.lfcache(alpha=0.5))
    out = bench.sample(model, steps=20)
    run = bench.report(model)
    assert run["reused"] > 0 and run["blockcache"]["block_calls_skipped"] > 0
    assert run["blockcache"]["block_calls"] == 16 * run["computed"]
    assert torch.equal(out, bench.sample(bench.blockcache(bench.lfcache(alpha=0.5)), steps=20))


def test_a_trial_neither_uses_nor_disturbs_the_residuals(bench):
    alone, both = bench.blockcache(), bench.lfcache(bench.blockcache(), **EVERY)
    assert torch.equal(bench.sample(alone, steps=12), bench.sample(both, steps=12))
    assert bench.report(alone)["blockcache"] == bench.report(both)["blockcache"]
    assert bench.report(both)["trials"] == 12
    plain = bench.lfcache(**EVERY)
    bench.sample(plain, steps=12)
    # BlockCache computes the first three calls in full, so their trials are the same
    assert bench.report(plain)["lfd"][:3] == bench.report(both)["lfd"][:3]


def test_context_windows_keep_their_own_residuals(bench):
    def windowed(model):
        model = model.clone()
        model.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
            comfy.context_windows.get_matching_context_schedule("standard_static"),
            comfy.context_windows.get_matching_fuse_method("pyramid"),
            context_length=2,
            context_overlap=0,
            dim=2,
        )
        return model

    model = windowed(bench.blockcache())
    answers = sample_frozen(bench, model, noise=bench.noise((1, 16, 4, 8, 8)))
    run = bench.report(model)["blockcache"]
    assert run["block_calls"] == 2 * 12 * 16 and run["block_calls_skipped"] > 0
    # a residual of the other window would show: the two halves are different noise
    first, second = answers[0].chunk(2, dim=2)
    assert (first - second).abs().max() > 1
    for answer in answers[1:]:
        assert (answer - answers[0]).abs().max() < 1e-5 * answers[0].abs().max()


def test_another_packs_patch_is_called_as_the_original(bench):
    calls = []

    def patch(args, extra):
        calls.append(1)
        return extra["original_block"](args)

    model = bench.blockcache()
    patched = model.clone()
    for i in range(16):
        patched.set_model_patch_replace(patch, "dit", "double_block", i)
    assert torch.equal(bench.sample(patched, steps=12), bench.sample(model, steps=12))
    run = bench.report(model)["blockcache"]
    assert len(calls) == run["block_calls"] - run["block_calls_skipped"]


def fail_in_block(patcher, at, kind):
    """A clone in which a block raises at its n-th evaluation."""
    patcher, seen = patcher.clone(), [0]

    def patch(args, extra):
        seen[0] += 1
        if seen[0] == at:
            raise kind("broken block")  # made here, because an error keeps the frames of its traceback alive
        return extra["original_block"](args)

    patcher.set_model_patch_replace(patch, "dit", "double_block", 7)
    return patcher


@pytest.mark.parametrize("at", (1, 3, 5))
@pytest.mark.parametrize("kind", (RuntimeError, comfy.model_management.InterruptProcessingException))
def test_an_error_in_a_block_leaves_nothing(bench, at, kind):
    model = fail_in_block(bench.blockcache(cache_rate=0.5), at, kind)
    with pytest.raises(kind) as caught:
        bench.sample(model, steps=12)
    runs = held()
    assert runs and all(run.cache_bytes == 0 and not run.residuals for run in runs)
    del caught, runs
    assert held() == []
    assert torch.equal(bench.sample(bench.blockcache(cache_rate=0.0)), bench.sample(bench.model))


def held():
    gc.collect()
    return [o for o in gc.get_objects() if isinstance(o, BlockCacheRun)]


def test_nothing_is_held_after_a_run_and_after_an_interrupt(bench):
    bench.sample(bench.blockcache(), steps=12)
    assert held() == []

    def interrupt(step, *_):
        if step == 6:
            comfy.model_management.interrupt_current_processing()
        # as the host's progress hook does after every step
        comfy.model_management.throw_exception_if_processing_interrupted()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        bench.sample(bench.blockcache(), steps=12, callback=interrupt)
    assert held() == []


def test_a_run_of_few_steps_is_computed_and_says_so(bench):
    model = bench.blockcache()
    assert torch.equal(bench.sample(model, steps=6), bench.sample(bench.model, steps=6))
    assert "too few" in bench.report(model)["warnings"][0]


def test_start_percent_computes_what_comes_before(bench):
    seen, bare = [], []
    bench.sample(watch(bench.blockcache(start_percent=0.5), seen), steps=20)
    bench.sample(watch(bench.model, bare), steps=20)
    same = [torch.equal(a, b) for a, b in zip(seen, bare)]
    assert all(same[:10]) and not all(same)


@pytest.mark.parametrize("setting, value", [("cache_rate", 1.0), ("cache_rate", -1.0), ("reuse_steps", 0)])
def test_bad_settings_are_refused_at_the_node(bench, setting, value):
    with pytest.raises(ValueError, match=setting):
        PreciseCacheBlockCache.execute(bench.model, **{"cache_rate": 0.4, "reuse_steps": 3, setting: value})


def test_an_input_that_is_no_model_is_refused(bench):
    with pytest.raises(ValueError, match="model"):
        PreciseCacheBlockCache.execute(object(), 0.4, 3)


def test_blocks_that_cannot_be_found_are_computed_and_lfcache_still_works(bench):
    model = bench.model.clone()
    # an architecture that keeps its blocks elsewhere
    model.add_object_patch("diffusion_model.blocks", torch.nn.Sequential(*bench.model.model.diffusion_model.blocks))
    both = bench.lfcache(bench.blockcache(model), alpha=1.0)
    out = bench.sample(both, steps=16)
    run = bench.report(both)
    assert torch.equal(out, bench.sample(bench.lfcache(alpha=1.0), steps=16)) and run["reused"] > 0
    assert run["blockcache"]["blocks"] == 0
    (warning,) = run["warnings"]
    assert "the blocks of WanModel cannot be found" in warning


def test_a_block_that_returns_something_unknown_is_computed(bench):
    model = bench.model.clone()

    def patch(args, extra):
        out = extra["original_block"](args)
        return {**out, "history": [out["img"]]}  # harmless to the model, unknown to BlockCache

    model.set_model_patch_replace(patch, "dit", "double_block", 9)
    cached = bench.blockcache(model)
    assert torch.equal(bench.sample(cached, steps=12), bench.sample(bench.model, steps=12))
    run = bench.report(cached)
    assert run["blockcache"]["block_calls_skipped"] == 0
    (warning,) = run["warnings"]
    assert "a block's outputs do not match its inputs" in warning


@pytest.mark.parametrize(
    "node, settings",
    [
        ("SkipLayerGuidanceDiT", {"scale": 3.0, "start_percent": 0.0, "end_percent": 1.0}),
        ("SkipLayerGuidanceDiTSimple", {"start_percent": 0.0, "end_percent": 1.0}),
    ],
)
def test_skip_layer_guidance_keeps_its_own_residuals(bench, node, settings):
    nodes_slg = pytest.importorskip("comfy_extras.nodes_slg")
    execute = getattr(getattr(nodes_slg, node), "execute", None)
    if execute is None:
        pytest.skip("this host's node has another shape")
    guided = execute(bench.model, double_layers="4, 9", single_layers="", **settings)[0]
    model = bench.blockcache(guided)
    answers = sample_frozen(bench, model)
    run = bench.report(model)
    assert run["blockcache"]["block_calls_skipped"] > 0 and run["warnings"] == []
    for answer in answers[1:]:
        assert (answer - answers[0]).abs().max() < 1e-5 * answers[0].abs().max()
    # the guidance acted, and without BlockCache the answer is the same
    assert (answers[0] - sample_frozen(bench, guided)[0]).abs().max() < 2e-5
    assert (answers[0] - sample_frozen(bench, bench.model)[0]).abs().max() > 1e-2


def test_easycache_beside_blockcache(bench):
    from testkit.host_caches import attach_easycache

    model = bench.blockcache(attach_easycache(bench.model, 0.2))
    out = bench.sample(model, steps=20)
    run = bench.report(model)
    assert torch.isfinite(out).all() and run["warnings"] == []
    # both acted: fewer blocks than in twenty full calls, and some of them skipped
    assert run["blockcache"]["block_calls"] < 20 * 16 and run["blockcache"]["block_calls_skipped"] > 0


def test_a_wrapper_that_takes_the_batch_apart(bench):
    def halves(apply_model, args):
        parts = []
        for i in range(len(args["input"])):
            c = {k: v[i : i + 1] if isinstance(v, torch.Tensor) else v for k, v in args["c"].items()}
            parts.append(apply_model(args["input"][i : i + 1], args["timestep"][i : i + 1], **c))
        return torch.cat(parts)

    model = bench.blockcache()
    model.set_model_unet_function_wrapper(halves)
    answers = sample_frozen(bench, model)
    run = bench.report(model)
    assert run["blockcache"]["block_calls_skipped"] > 0 and run["warnings"] == []
    for answer in answers[1:]:
        assert (answer - answers[0]).abs().max() < 1e-5 * answers[0].abs().max()
