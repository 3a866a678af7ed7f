"""A run that was broken off, and calls of its transformer that are not its own."""

import gc
from pipes import (
    alive,
    at_step,
    embeddings,
    euler,
    inputs_of,
    quiet,
    runner,
    wan,
)
from types import SimpleNamespace

import pytest
import torch
from own import STEPS, entry_of, own_loop, own_pipe
from undescribed import stable_diffusion

from precisecache_core import BlockCacheConfig
from precisecache_core.pipelines.diffusers import apply_precisecache


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
