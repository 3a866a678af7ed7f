"""From apply to remove: what is left, what a broken run leaves, and what stays in memory."""

import gc
import json
import weakref
from pipes import alive, at_step, cogvideox, euler, hunyuan, inputs_of, small_wan, wan, wan_two

import pytest
import torch
from undescribed import flux, ltx

from precisecache_core import dump_report
from precisecache_core.pipelines.diffusers import apply_precisecache

PIPELINES = [wan, wan_two, hunyuan, cogvideox, ltx, flux]


def state_of(pipe):
    """What a cache could leave behind, by name."""
    modules = [module for module in (pipe.transformer, getattr(pipe, "transformer_2", None)) if module is not None]
    return [
        *(
            (name, sorted(vars(module)), sorted(vars(module).get("_diffusers_hook").hooks))
            for root in modules
            for name, module in root.named_modules()
            if "_diffusers_hook" in vars(module)
        ),
        *((name, sorted(vars(module))) for root in modules for name, module in root.named_modules()),
        sorted(set(vars(pipe.scheduler)) - {"_step_index"}),
    ]


@pytest.mark.parametrize("make, preset", [(wan, "base"), *((make, "flash") for make in PIPELINES)])
def test_nothing_is_left_after_remove(make, preset):
    pipe, go = make()
    plain = go()
    before = state_of(pipe)
    for _ in range(2):
        cache = apply_precisecache(pipe, preset)
        assert state_of(pipe) != before
        assert not torch.equal(go(), plain)
        assert "step" in vars(pipe.scheduler)
        cache.remove()
        assert state_of(pipe) == before and "step" not in vars(pipe.scheduler)
        assert torch.equal(go(), plain)
        assert len(cache.report()["runs"]) == 1
        cache.remove()  # does nothing the second time
        assert state_of(pipe) == before
        with pytest.raises(ValueError, match="were removed: call apply_precisecache again"), cache:
            pass


def test_a_module_that_never_ran_keeps_nothing_either():
    pipe, _ = wan()
    before = state_of(pipe)
    apply_precisecache(pipe).remove()
    assert state_of(pipe) == before and "_diffusers_hook" not in vars(pipe.transformer)


def test_applying_twice_is_an_error_and_changes_nothing():
    pipe, go = wan_two()
    with apply_precisecache(pipe) as cache:
        with pytest.raises(ValueError, match="^PreciseCache: this pipeline has caches already: call remove"):
            apply_precisecache(pipe, "turbo")
        go()
        assert cache.report()["runs"][0]["reused"]
    with apply_precisecache(pipe, "turbo") as cache:
        go()
        assert cache.report()["runs"][0]["reused"]


def test_a_second_transformer_that_is_in_use_leaves_the_first_untouched():
    pipe, go = wan_two()
    other, _ = wan(transformer=pipe.transformer_2)
    with apply_precisecache(other):
        before = sorted(vars(pipe.transformer))
        with pytest.raises(ValueError, match="has caches already"):
            apply_precisecache(pipe)
        assert sorted(vars(pipe.transformer)) == before


@pytest.mark.parametrize(
    "preset, options, words",
    [
        ("fast", {}, "preset must be one of off, base, turbo, .*got 'fast'"),
        ("custom", {"alpha": -1.0}, "alpha must be .*got -1"),
        ("budget", {"share": 2.0}, "share must be .*got 2"),
        ("base", {"alpha": 0.7}, "alpha must be left out with the preset base, got 0.7.*choose custom or paper"),
        ("turbo", {"share": 0.3}, "share must be left out with the preset turbo, got 0.3.*choose budget"),
        ("off", {"warmup": 3}, "warmup must be left out with the preset off, got 3.*choose base or turbo"),
        ("paper", {"factor_hw": 2}, "factor_hw must be left out with the preset paper, got 2"),
        ("custom", {"extra_steps": 2}, "extra_steps must be left out with the preset custom, got 2.*budget"),
        ("base", {"warm_up": 3}, "setting must be one of extra_steps, warmup, .*got 'warm_up'"),
        ("base", {"blockcache": True}, "blockcache must be a BlockCacheConfig or None, got True. Use Block"),
    ],
)
def test_wrong_settings_raise_and_leave_the_pipeline_alone(preset, options, words):
    pipe, _ = wan()
    before = state_of(pipe)
    with pytest.raises(ValueError, match=words):
        apply_precisecache(pipe, preset, **options)
    assert state_of(pipe) == before


def test_what_is_no_pipeline_raises():
    with pytest.raises(ValueError, match="pipe must be a pipeline of diffusers .*got Linear"):
        apply_precisecache(torch.nn.Linear(1, 1))


def test_off_computes_every_step_and_reports():
    pipe, go = wan()
    plain = go()
    with apply_precisecache(pipe, "off") as cache:
        assert torch.equal(go(), plain)
    (entry,) = cache.report()["runs"]
    assert entry["decisions"] == "C" * 12 and entry["trials"] == 0 and entry["warnings"] == []


def test_budget_computes_about_its_share():
    pipe, go = wan()
    with apply_precisecache(pipe, "budget", share=0.5) as cache:
        go(num_inference_steps=20)
    assert cache.report()["runs"][0]["computed"] == 10


def test_each_run_has_an_entry_that_json_holds():
    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        assert cache.report()["runs"] == []
        first = go()
        assert torch.equal(go(), first)
        go(num_inference_steps=3)
    entries = json.loads(dump_report(cache.report()))["runs"]
    assert [entry["steps"] for entry in entries] == [12, 12, 3]
    assert entries[0]["decisions"] == entries[1]["decisions"] and entries[0]["model"] == "WanTransformer3DModel"
    assert entries[2]["standing_aside"] == ["lfcache"] and "3 steps are too few" in entries[2]["warnings"][0]
    assert entries[0]["seconds"]["sampling"] > entries[0]["seconds"]["compute"] > 0 and entries[0]["speedup"]


# --- runs that are broken off or changed ---


def test_an_interrupted_run_ends_and_the_next_is_right():
    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        whole = go()

        def interrupt(pipe, kwargs):
            pipe._interrupt = True

        go(callback_on_step_end=at_step(8, interrupt))
        assert cache.report()["runs"][1]["calls"] == 9
        assert torch.equal(go(), whole)
    first, broken, last = cache.report()["runs"]
    assert broken["decisions"] == first["decisions"][:9] and last["decisions"] == first["decisions"]


@pytest.mark.parametrize("make", [wan, hunyuan, cogvideox, ltx])
@pytest.mark.parametrize("step", [0, 8])
def test_an_exception_in_a_callback_breaks_one_run_only(make, step):
    pipe, go = make()
    plain = go()

    def fail(pipe, kwargs):
        raise KeyboardInterrupt

    with apply_precisecache(pipe) as cache:
        whole = go()
        with pytest.raises(KeyboardInterrupt):
            go(callback_on_step_end=at_step(step, fail))
        assert torch.equal(go(), whole)
    first, broken, last = cache.report()["runs"]
    assert broken["calls"] == step + 1 and last["decisions"] == first["decisions"]
    assert torch.equal(go(), plain)


@pytest.mark.parametrize("number", [0, 1, 3, 20])
def test_an_exception_in_the_model_breaks_one_run_only(number):
    """Of the transformer's calls, numbers 0 and 1 are the first step's branches; the following ones are trials."""
    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        whole = go()
        calls = []

        def fail(module, args):
            calls.append(None)
            if len(calls) == number + 1:
                raise MemoryError("no memory for this") if number == 3 else KeyboardInterrupt

        handle = pipe.transformer.blocks[0].register_forward_pre_hook(fail)
        if number == 3:  # a trial that fails costs the trials, not the run
            go()
            assert "no memory for this" in cache.report()["runs"][1]["warnings"][0]
        else:
            with pytest.raises(KeyboardInterrupt):
                go()
        handle.remove()
        assert torch.equal(go(), whole)
    runs = cache.report()["runs"]
    assert runs[-1]["decisions"] == runs[0]["decisions"] and runs[-1]["warnings"] == []


def test_a_callback_may_change_the_latents():
    pipe, go = wan()

    def louder(pipe, kwargs):
        return {**kwargs, "latents": kwargs["latents"] * 1.5}

    change = {"callback_on_step_end": at_step(7, louder)}
    plain = go(**change)
    assert not torch.equal(plain, go())
    with apply_precisecache(pipe, "custom", alpha=0.0):
        assert torch.equal(go(**change), plain)
    with apply_precisecache(pipe, "base") as cache:
        changed = go(**change)
    assert cache.report()["runs"][0]["reused"] and (changed - plain).norm() < plain.norm()


def test_a_callback_that_ends_the_guidance():
    """The pipeline then calls the transformer with one branch where there were two."""
    pipe, go = cogvideox()

    def cut(pipe, kwargs):
        return {"prompt_embeds": kwargs["prompt_embeds"][-1:]}

    def with_cut(**options):
        # the pipeline keeps its number of branches in a local variable, so the callback halves nothing but the texts
        with pytest.raises(RuntimeError):
            go(callback_on_step_end=at_step(7, cut), callback_on_step_end_tensor_inputs=["prompt_embeds"], **options)

    with apply_precisecache(pipe, "custom", alpha=0.0) as cache:
        with_cut()
        assert torch.equal(go(), go())
    assert [entry["calls"] for entry in cache.report()["runs"]] == [8, 12, 12]


def test_another_scheduler_after_apply():
    from diffusers import UniPCMultistepScheduler

    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        go()
        first = pipe.scheduler
        pipe.scheduler = UniPCMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=2.0
        )
        go()
        assert "step" not in vars(first) and "step" in vars(pipe.scheduler)
        pipe.scheduler = euler()
        go()
    a, b, c = cache.report()["runs"]
    assert a["decisions"] == c["decisions"] and a["reused"] and b["reused"] and a["sigmas"] != b["sigmas"]
    assert "step" not in vars(pipe.scheduler)


def test_another_transformer_after_apply_is_not_cached():
    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        pipe.transformer = small_wan()
        go()
    assert cache.report()["runs"] == []


def test_a_call_outside_of_a_pipeline_is_computed():
    pipe, go = wan()
    inputs = {
        "hidden_states": torch.randn(1, 4, 3, 8, 8),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 4, 8),
    }
    with torch.no_grad():
        plain = pipe.transformer(**inputs).sample
        with apply_precisecache(pipe) as cache:
            for _ in range(3):
                assert torch.equal(pipe.transformer(**inputs).sample, plain)
            whole = go()
            for _ in range(3):
                assert torch.equal(pipe.transformer(**inputs, return_dict=False)[0], plain)
            assert torch.equal(go(), whole)
    assert [entry["calls"] for entry in cache.report()["runs"]] == [12, 12]


# --- memory ---


def tensors():
    gc.collect()
    return {id(thing): thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)}


@pytest.mark.filterwarnings("ignore")  # gc meets deprecated objects
@pytest.mark.parametrize("make, how", [(wan, "whole"), (cogvideox, "whole"), (wan, "interrupted")])
def test_no_tensors_are_held_after_a_run(make, how):
    pipe, go = make()

    def interrupt(pipe, kwargs):
        pipe._interrupt = True

    change = {"callback_on_step_end": at_step(8, interrupt)} if how == "interrupted" else {}
    go(**change)
    with apply_precisecache(pipe, "flash") as cache:
        go(**change)
        before = len(tensors())
        go(**change)
        go(**change)
        # schedulers keep some of their own, in the same number after each run
        assert len(tensors()) == before
    assert len(cache.report()["runs"]) == 3


def test_the_latents_of_a_run_are_freed():
    pipe, go = wan()
    seen = []
    inputs_of(pipe.transformer, seen)
    with apply_precisecache(pipe):
        go()
        assert len(seen) > 12 and not alive(seen)


def test_the_latents_are_freed_after_an_error_in_the_model():
    pipe, go = wan()
    seen = []
    inputs_of(pipe.transformer, seen)

    def fail(module, args):
        if len(seen) == 30:
            raise KeyboardInterrupt

    pipe.transformer.blocks[0].register_forward_pre_hook(fail)
    with apply_precisecache(pipe) as cache:
        try:
            go()
        except KeyboardInterrupt:
            pass  # and its traceback is gone
        assert len(seen) == 30 and not alive(seen)
    assert 0 < cache.report()["runs"][0]["calls"] < 12


def test_a_pipeline_that_is_dropped_is_freed_with_its_cache():
    pipe, go = wan()
    cache = apply_precisecache(pipe)
    go()
    ref = weakref.ref(pipe.transformer)
    del pipe, go, cache
    gc.collect()
    assert ref() is None


def test_the_handle_of_a_removed_cache_does_not_keep_the_weights():
    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        go()
    weights = weakref.ref(pipe.transformer)
    del pipe, go
    gc.collect()
    assert weights() is None and cache.report()["runs"][-1]["reused"]
