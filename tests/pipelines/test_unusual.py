"""Loops, callbacks and components that a run does not expect: right, or aside with a line."""

import copy
import gc
import pickle
import weakref
from pipes import (
    alive,
    at_step,
    cogvideox,
    embeddings,
    euler,
    hunyuan,
    inputs_of,
    quiet,
    runner,
    small_wan,
    wan,
    wan_two,
)
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from undescribed import stable_diffusion

from precisecache_core import BlockCacheConfig
from precisecache_core.cached_run import CachedRun
from precisecache_core.pipelines.adapters import ADAPTERS, Adapter, WanAdapter, WanImageAdapter
from precisecache_core.pipelines.branches import Branches
from precisecache_core.pipelines.diffusers import apply_precisecache
from precisecache_core.pipelines.offloading import kept_in_place

STEPS = 12


def entry_of(cache, index=-1):
    return cache.report()["runs"][index]


def off(tensor, reference):
    return ((tensor - reference).norm() / reference.norm()).item()


class Halves(torch.nn.Module):
    """A transformer of its own kind: `make` turns half of its input into what it returns."""

    def __init__(self, make):
        super().__init__()
        self.make = make
        self.calls = 0

    def forward(self, hidden_states, timestep):
        self.calls += 1
        return self.make(hidden_states, timestep)


def own_pipe(make=lambda x, t: x * 0.5):
    return SimpleNamespace(scheduler=euler(), transformer=Halves(make))


@torch.no_grad()
def own_loop(pipe, call=lambda pipe, x, t: pipe.transformer(x, t[None]), steps=STEPS):
    pipe.scheduler.set_timesteps(steps)
    x = embeddings(0, 1, 4, 8, 8)
    for t in pipe.scheduler.timesteps:
        x = pipe.scheduler.step(call(pipe, x, t), t, x).prev_sample
    return x


# --- how the caller computes ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [wan, hunyuan, cogvideox])
def test_under_autocast_steps_are_reused_after_trials(make, dtype):
    pipe, go = make()
    exact = go()
    with apply_precisecache(pipe):
        distance = off(go(), exact)
    with torch.autocast("cpu", dtype):
        plain = go()
        with apply_precisecache(pipe) as cache:
            latent = go()
    entry = entry_of(cache)
    assert entry["reused"] and entry["trials"] == entry["steps"] and entry["warnings"] == []
    assert not torch.equal(plain, exact)  # the model computed in half precision
    assert off(latent, plain) < 1.5 * distance


@torch.enable_grad()
def walk(pipe, keeps_graph):
    x = embeddings(0, 1, 4, 3, 8, 8)
    pipe.scheduler.set_timesteps(STEPS)
    for t in pipe.scheduler.timesteps:
        x = x if keeps_graph else x.detach()
        inputs = {"hidden_states": x, "timestep": t[None], "encoder_hidden_states": embeddings(1, 1, 4, 8)}
        x = pipe.scheduler.step(pipe.transformer(**inputs).sample, t, x).prev_sample
    return x


def test_without_no_grad_every_step_is_computed_and_a_line_says_so():
    pipe, _ = wan()
    plain = walk(pipe, keeps_graph=True)
    with apply_precisecache(pipe) as cache:
        latent = walk(pipe, keeps_graph=True)
    assert torch.equal(latent, plain) and latent.requires_grad
    assert any("gradients are kept, so use torch.no_grad()" in line for line in entry_of(cache)["warnings"])


@pytest.mark.parametrize("preset", ["base", "flash"])
def test_where_the_latent_has_no_gradients_steps_are_reused(preset):
    pipe, _ = wan()
    with apply_precisecache(pipe, preset) as cache:
        walk(pipe, keeps_graph=False)
    assert entry_of(cache)["reused"]
    assert entry_of(cache)["standing_aside"] == ([] if preset == "base" else ["blockcache"])


def test_autocast_around_the_transformer_only():
    pipe, _ = wan()
    pipe.transformer.bfloat16()

    def call(pipe, x, t):
        with torch.autocast("cpu", torch.bfloat16):
            inputs = {"timestep": t[None], "encoder_hidden_states": embeddings(1, 1, 4, 8)}
            return pipe.transformer(hidden_states=x, **inputs).sample.float()

    with torch.no_grad(), apply_precisecache(pipe) as cache:
        pipe.scheduler.set_timesteps(STEPS)
        x = embeddings(0, 1, 4, 3, 8, 8)
        for t in pipe.scheduler.timesteps:
            x = pipe.scheduler.step(call(pipe, x, t), t, x).prev_sample
    assert entry_of(cache)["trials"] == STEPS and entry_of(cache)["warnings"] == []


def test_a_torch_that_does_not_know_autocast_by_device(monkeypatch):
    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        expected = go()

        def old(*args):
            raise TypeError("takes no arguments")

        monkeypatch.setattr(torch, "is_autocast_enabled", old)
        assert torch.equal(go(), expected)
    assert entry_of(cache)["reused"]


READS = {"item", "tolist", "__float__", "__bool__", "__int__", "__index__", "cpu", "nonzero", "equal", "numpy"}


class Reads(TorchFunctionMode):
    """Counts what would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += getattr(function, "__name__", "") in READS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [wan, cogvideox])
def test_a_reused_step_reads_the_device_once(make):
    pipe, go = make()

    def reads_of(cache_of):
        marks = [0]
        with cache_of as cache, Reads() as reads:

            def note(pipe, step, timestep, kwargs):
                marks.append(reads.count)
                return kwargs

            go(callback_on_step_end=note)
        return cache, [b - a for a, b in zip(marks, marks[1:])]

    _, plain = reads_of(apply_precisecache(pipe, "off"))
    cache, counts = reads_of(apply_precisecache(pipe, "budget", share=0.3))
    decisions = entry_of(cache)["decisions"]
    after_reuse = [i for i in range(1, STEPS) if decisions[i - 1 : i + 1] == "RR"]
    assert after_reuse and all(counts[i] - plain[i] <= 1 for i in after_reuse)


# --- schedulers that are copied, shared, or wrapped by others ---


def test_copies_of_the_scheduler_step_themselves():
    copies = []

    def call(pipe, x, t):
        if len(copies) < 2:
            copies.extend((copy.deepcopy(pipe.scheduler), pickle.loads(pickle.dumps(pipe.scheduler))))
        return pipe.transformer(x, t[None])

    pipe = own_pipe()
    with apply_precisecache(pipe):
        own_loop(pipe, call)
        index = pipe.scheduler.step_index
        for other in copies:
            x = embeddings(0, 1, 4, 8, 8)
            other.set_timesteps(5)
            other.step(x, other.timesteps[0], x)
            assert other.step_index == 1 and pipe.scheduler.step_index == index


def test_a_pipeline_that_copies_its_scheduler_in_each_run():
    """As LTX-2 does for its sound."""
    pipe = own_pipe(lambda x, t: (x * 0.5, x * 0.25))

    @torch.no_grad()
    def go():
        pipe.scheduler.set_timesteps(STEPS)
        second, (x, y) = copy.deepcopy(pipe.scheduler), (embeddings(0, 1, 4, 8, 8), embeddings(1, 1, 4, 8, 8))
        for t in pipe.scheduler.timesteps:
            a, b = pipe.transformer(x, t[None])
            x, y = pipe.scheduler.step(a, t, x).prev_sample, second.step(b, t, y).prev_sample
        return torch.cat((x, y))

    plain = go()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain) and torch.equal(go(), plain)
    assert any("more than one output" in line for line in entry_of(cache)["warnings"])


def test_a_loop_that_steps_another_scheduler_is_computed_and_keeps_few_outputs():
    pipe, outputs = own_pipe(), []

    def go():
        with torch.no_grad():
            pipe.scheduler.set_timesteps(20)
            scheduler, x = copy.deepcopy(pipe.scheduler), embeddings(0, 1, 4, 8, 8)
            for t in scheduler.timesteps:
                output = pipe.transformer(x, t[None])
                outputs.append(weakref.ref(output))
                x = scheduler.step(output, t, x).prev_sample
        return x

    plain = go()
    outputs.clear()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
        gc.collect()
        assert len(alive(outputs)) <= 1
    line = entry_of(cache)["warnings"][-1]
    assert line.startswith("the transformer was called 9 times without a step of the scheduler")


def test_a_copy_of_all_that_a_scheduler_holds():
    """As the panorama pipeline makes one for each view."""
    pipe = own_pipe()
    with apply_precisecache(pipe):
        held = copy.deepcopy(vars(pipe.scheduler))
        vars(pipe.scheduler).update(held)
        own_loop(pipe)
        assert pipe.scheduler.step_index == STEPS
    assert "step" not in vars(pipe.scheduler)


def test_two_pipelines_on_one_scheduler():
    first, go_first = wan()
    second, go_second = wan(scheduler=first.scheduler)
    a, b = apply_precisecache(first), apply_precisecache(second)
    go_first()
    go_second()
    a.remove()
    go_second()
    assert [entry["reused"] > 0 for entry in b.report()["runs"]] == [True, True]
    b.remove()
    assert "step" not in vars(first.scheduler)


def test_another_wrapper_of_the_step_is_kept():
    pipe, go = wan()
    original, seen = pipe.scheduler.step, []

    def theirs(model_output, timestep, sample, **kwargs):
        seen.append(timestep)
        return original(model_output, timestep, sample, **kwargs)

    pipe.scheduler.step = theirs
    with apply_precisecache(pipe) as cache:
        go()
    assert vars(pipe.scheduler)["step"] is theirs
    assert len(seen) == STEPS and entry_of(cache)["reused"]


def test_a_wrapper_of_the_step_that_takes_anything():
    pipe, go = wan()
    original = pipe.scheduler.step
    pipe.scheduler.step = lambda *args, **kwargs: original(*args, **kwargs)
    with apply_precisecache(pipe) as cache:
        go()
    assert entry_of(cache)["reused"] and entry_of(cache)["trials"] == STEPS


def test_a_wrapper_of_the_step_that_comes_later_is_kept():
    pipe, go = wan()
    plain, seen = go(), []
    cache = apply_precisecache(pipe)
    ours = pipe.scheduler.step

    def theirs(model_output, timestep, sample, **kwargs):
        seen.append(timestep)
        return ours(model_output, timestep, sample, **kwargs)

    pipe.scheduler.step = theirs
    go()
    cache.remove()
    assert torch.equal(go(), plain) and len(seen) == 2 * STEPS
    assert len(cache.report()["runs"]) == 1 and entry_of(cache)["reused"]


# --- calls that are not the run's ---


def test_a_run_that_was_broken_off_does_not_answer_another_pipeline():
    import diffusers

    pipe, go = wan()
    other = quiet(
        diffusers.WanPipeline(
            tokenizer=None, text_encoder=None, vae=pipe.vae, transformer=pipe.transformer, scheduler=euler(5.0)
        )
    )
    given = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": STEPS, "guidance_scale": 4.0}
    texts = {"prompt_embeds": embeddings(1, 1, 4, 8), "negative_prompt_embeds": embeddings(2, 1, 4, 8)}
    sample = runner(other, embeddings(9, 1, 4, 3, 8, 8), **given, **texts)
    plain = sample()

    def fail(pipe, kwargs):
        raise RuntimeError

    cache = apply_precisecache(pipe, "turbo")
    steps = (1, 4, 7, 10)
    for step in steps:
        with pytest.raises(RuntimeError):
            go(callback_on_step_end=at_step(step, fail))
        assert torch.equal(sample(), plain), step
        assert torch.equal(sample(), plain), step
    assert [entry["calls"] for entry in cache.report()["runs"]] == [step + 1 for step in steps]


@pytest.mark.parametrize(
    "given",
    [
        lambda t: (t / 1000).to(torch.float16),
        lambda t: t.to(torch.bfloat16) / 1000,
        lambda t: t * 0.001,
        lambda t: t.to(torch.bfloat16),
        lambda t: t.long(),
        lambda t: torch.stack((0 * t, t)),  # as with a clean frame
    ],
)
def test_however_timesteps_are_rounded_they_are_the_runs_own(given):
    pipe = own_pipe(lambda x, t: x * 0.5)
    with apply_precisecache(pipe, "budget", share=0.3) as cache:
        own_loop(pipe, lambda pipe, x, t: pipe.transformer(x, given(t)), steps=50)
    entry = entry_of(cache)
    assert entry["calls"] == 50 and entry["reused"] > 30 and len(entry["warnings"]) == 1  # that it is not known


@pytest.mark.parametrize("blocks", [False, True])
def test_a_broken_run_without_lfcache_skips_no_blocks_of_another_pipeline(blocks):
    pipe, go = wan()
    x, text = embeddings(9, 1, 4, 3, 8, 8), embeddings(1, 1, 4, 8)

    @torch.no_grad()
    def other():
        scheduler = euler(5.0)
        scheduler.set_timesteps(STEPS)
        return [pipe.transformer(x, t[None], text).sample for t in scheduler.timesteps]

    def fail(pipe, kwargs):
        raise RuntimeError

    plain = other()
    blockcache = BlockCacheConfig(cache_rate=0.5, warmup=2) if blocks else None
    cache = apply_precisecache(pipe, "off", blockcache=blockcache)
    for step in (3, 5, 8):
        with pytest.raises(RuntimeError):
            go(callback_on_step_end=at_step(step, fail))
        assert all(torch.equal(a, b) for a, b in zip(other(), plain)), step
    cache.remove()


@pytest.mark.parametrize("divisor", [1, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loop_that_was_broken_off_does_not_answer_another_loop(divisor, dtype):
    """divisor: Flux takes timesteps from 0 to 1; dtype: of the timesteps that the model gets."""

    def call(pipe, x, t):
        return pipe.transformer(x, t[None].to(dtype) / divisor)

    def broken(pipe, x, t):
        if t < 600:
            raise KeyError
        return call(pipe, x, t)

    pipe = own_pipe(lambda x, t: x * 0.5 * (1 + t.float() * divisor / 1000))
    other = SimpleNamespace(scheduler=euler(5.0), transformer=pipe.transformer)
    plain = own_loop(other, call)
    with apply_precisecache(pipe, "budget", share=0.3) as cache:
        own_loop(pipe, call)
        assert entry_of(cache)["reused"]
        with pytest.raises(KeyError):
            own_loop(pipe, broken)
        assert torch.equal(own_loop(other, call), plain)


def test_a_unet_is_computed_after_an_interrupted_run():
    pipe, go = stable_diffusion("DDIMScheduler")

    def stop(pipe, kwargs):
        pipe._interrupt = True

    x, text = embeddings(5, 2, 4, 8, 8), embeddings(1, 2, 4, 8)
    cache = apply_precisecache(pipe)
    go(num_inference_steps=20, callback_on_step_end=at_step(9, stop))
    with torch.no_grad():
        found = [pipe.unet(x, 500 + i, encoder_hidden_states=text)[0] for i in range(3)]
        cache.remove()
        plain = [pipe.unet(x, 500 + i, encoder_hidden_states=text)[0] for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(found, plain))


# --- what a pipeline changes in mid-run ---


def test_another_prompt_in_mid_run_is_computed_at_once():
    pipe, go = wan()

    def swap(pipe, kwargs):
        return {**kwargs, "prompt_embeds": embeddings(7, 1, 4, 8)}

    with apply_precisecache(pipe) as cache:
        go(num_inference_steps=20)
        plain = entry_of(cache)["decisions"]
        first = plain.index("RR")
        changed = {"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
        go(num_inference_steps=20, callback_on_step_end=at_step(first - 1, swap), **changed)
    decisions = entry_of(cache)["decisions"]
    assert decisions[:first] == plain[:first] and decisions[first] == "C"


def test_the_same_prompt_in_new_tensors_is_no_change():
    pipe, go = wan()

    def again(pipe, step, timestep, kwargs):
        return {**kwargs, "prompt_embeds": kwargs["prompt_embeds"].clone()}

    with apply_precisecache(pipe) as cache:
        go()
        go(callback_on_step_end=again, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])
    first, second = cache.report()["runs"]
    assert first["decisions"] == second["decisions"] and first["reused"]


def test_after_the_guidance_was_switched_off_the_next_step_is_computed():
    pipe, go = wan()

    def cut(pipe, kwargs):
        pipe._guidance_scale = 1.0

    with apply_precisecache(pipe) as cache:
        go(num_inference_steps=20)
        plain = entry_of(cache)["decisions"]
        step = plain.index("RR") - 1
        go(num_inference_steps=20, callback_on_step_end=at_step(step, cut))
    decisions = entry_of(cache)["decisions"]
    assert decisions[: step + 2] == plain[: step + 2] and decisions[step + 2] == "C" != plain[step + 2]


@pytest.mark.parametrize("rows", [(2, 1), (2, 3)])
def test_calls_of_different_sizes_in_one_step(rows):
    """As Stable Diffusion 3 with skipped layers."""

    def call(pipe, x, t):
        a, b = (pipe.transformer(torch.cat([x] * n), t.expand(n)) for n in rows)
        return a[:1] + 0.5 * (a[1:2] - b[:1])

    pipe = own_pipe()
    plain = own_loop(pipe, call)
    with apply_precisecache(pipe) as cache:
        assert off(own_loop(pipe, call), plain) < 0.05
    assert entry_of(cache)["calls"] == STEPS


def test_a_second_pipeline_on_the_same_components():
    import diffusers

    pipe, _ = cogvideox()
    second = quiet(diffusers.CogVideoXPipeline(**pipe.components))
    texts = {"prompt_embeds": embeddings(1, 1, 4, 8), "negative_prompt_embeds": embeddings(2, 1, 4, 8)}
    given = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": STEPS, **texts}
    go = runner(second, embeddings(0, 1, 3, 4, 8, 8), **given)
    for guidance in (4.0, 1.0):
        plain = go(guidance_scale=guidance)
        with apply_precisecache(pipe) as cache:
            assert off(go(guidance_scale=guidance), plain) < 0.2
        assert entry_of(cache)["calls"] == STEPS


# --- Wan 2.2's second transformer ---


def test_the_rehearsal_has_the_second_transformers_guidance():
    pipe, go = wan_two(0.8)

    seen = []
    pipe.transformer_2.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )

    def rehearsed(scale):
        """The small latents that the second transformer gets before the first full one, for the first branch."""
        seen.clear()
        with apply_precisecache(pipe):
            go(guidance_scale=4.0, guidance_scale_2=scale)
        full = next(index for index, x in enumerate(seen) if x.shape[-1] == 8)
        return seen[:full:2]

    same, other = rehearsed(4.0), rehearsed(1.5)
    assert len(same) == len(other) > 3
    assert torch.allclose(same[0], other[0], atol=1e-4)  # what the first transformer has made
    assert all(off(a, b) > 0.01 for a, b in zip(same[2:], other[2:]))


def test_a_transformer_that_a_trial_brought_to_the_gpu_goes_back():
    module = torch.nn.Linear(2, 2, device="meta")
    with kept_in_place([module, torch.nn.Identity()]):
        module.to_empty(device="cpu")
    assert module.weight.device.type == "meta"


# --- transformers and pipelines of other kinds ---


def test_a_transformer_that_returns_a_bare_tensor():
    pipe = own_pipe()
    plain = own_loop(pipe)
    with apply_precisecache(pipe) as cache:
        assert off(own_loop(pipe), plain) < 0.05
    assert entry_of(cache)["reused"]


def test_a_transformer_that_takes_a_list_is_computed_and_a_line_says_so(caplog):
    pipe = own_pipe(lambda x, t: [part * 0.5 for part in x])
    call = lambda pipe, x, t: torch.stack(pipe.transformer(list(x), t[None]))  # noqa: E731
    plain = own_loop(pipe, call)
    with apply_precisecache(pipe):
        assert torch.equal(own_loop(pipe, call), plain)
    assert [record.getMessage() for record in caplog.records] == [
        "PreciseCache: Halves takes no single latent: computing every call"
    ]


def test_a_transformer_in_a_wrapper_that_takes_anything_is_computed(caplog):
    class Wrapped(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *inputs, **kwargs):
            return self.module(*inputs, **kwargs)

    pipe = own_pipe()
    plain = own_loop(pipe)
    pipe.transformer = Wrapped(pipe.transformer)
    with apply_precisecache(pipe) as cache:
        assert torch.equal(own_loop(pipe), plain)
    assert cache.report()["runs"] == []
    assert "Wrapped takes no single latent: computing every call" in caplog.text


def test_without_memory_for_the_second_branch_the_step_is_still_right(monkeypatch):
    pipe, go = wan()
    plain = go()
    with apply_precisecache(pipe) as cache:
        distance = off(go(), plain)
        answer = Branches.answer

        def fails(self, tensor, rows):
            if self.count == 2:
                raise torch.OutOfMemoryError("no memory")
            return answer(self, tensor, rows)

        monkeypatch.setattr(Branches, "answer", fails)
        assert off(go(), plain) == pytest.approx(distance, rel=1e-3)
    assert entry_of(cache)["reused"] == entry_of(cache, 0)["reused"]


def test_a_report_that_fails_does_not_fail_the_run(monkeypatch, caplog):
    pipe, go = wan()
    plain = go()

    def fails(self):
        raise ZeroDivisionError("no time")

    monkeypatch.setattr(CachedRun, "end", fails)
    with apply_precisecache(pipe, "off"):
        assert torch.equal(go(), plain)
    assert "a run has no report: ZeroDivisionError: no time" in caplog.text
    assert "_diffusers_hook" not in vars(pipe.transformer) or not pipe.transformer._diffusers_hook.hooks


def test_what_fails_in_the_caches_does_not_fail_the_run():
    pipe, go = wan()
    plain = go()

    levels = pipe.scheduler.set_timesteps

    def set_timesteps(*args, **kwargs):
        levels(*args, **kwargs)
        pipe.scheduler.sigmas = pipe.scheduler.sigmas.as_subclass(NoLevels)

    class NoLevels(torch.Tensor):
        def double(self):
            raise ZeroDivisionError("no levels")

    pipe.scheduler.set_timesteps = set_timesteps
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
    assert cache.report()["runs"] == []


@pytest.mark.parametrize(
    "name, kind",
    [
        ("WanModularPipeline", WanAdapter),
        ("Wan22ModularPipeline", WanAdapter),
        ("WanImage2VideoModularPipeline", WanImageAdapter),
        ("Wan22Image2VideoModularPipeline", WanImageAdapter),
        ("Wan22VaceModularPipeline", Adapter),
    ],
)
def test_each_modular_pipeline_of_wan_has_its_adapter(name, kind):
    module = pytest.importorskip("diffusers.modular_pipelines.wan.modular_pipeline")
    if not hasattr(module, name):
        pytest.skip(f"this diffusers has no {name}")
    names = [cls.__name__ for cls in getattr(module, name).__mro__]
    assert next(ADAPTERS[name] for name in names if name in ADAPTERS) is kind


# --- other caches and compiled code ---


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


# --- memory ---


def test_the_handle_of_a_removed_cache_does_not_keep_the_weights():
    pipe, go = wan()
    with apply_precisecache(pipe) as cache:
        go()
    weights = weakref.ref(pipe.transformer)
    del pipe, go
    gc.collect()
    assert weights() is None and entry_of(cache)["reused"]


def test_the_next_call_frees_what_a_broken_run_has_kept():
    pipe, go = wan()
    seen = []
    inputs_of(pipe.transformer, seen)

    def fail(pipe, kwargs):
        raise RuntimeError

    cache = apply_precisecache(pipe)
    with pytest.raises(RuntimeError):
        go(callback_on_step_end=at_step(8, fail))
    of_run = list(seen)
    x = embeddings(3, 1, 4, 3, 8, 8)
    inputs = {"timestep": torch.tensor([500.0]), "encoder_hidden_states": embeddings(1, 1, 4, 8)}
    with torch.no_grad():
        found = [pipe.transformer(hidden_states=x, **inputs).sample for _ in range(3)]
        gc.collect()
        assert len(of_run) > 8 and not alive(of_run)
        cache.remove()
        plain = pipe.transformer(hidden_states=x, **inputs).sample
    assert all(torch.equal(tensor, plain) for tensor in found)
