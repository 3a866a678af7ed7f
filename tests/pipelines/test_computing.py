"""How the caller computes: with autocast, with gradients, on a device that is not to be read."""

from pipes import (
    cogvideox,
    embeddings,
    hunyuan,
    wan,
)

import pytest
import torch
from own import STEPS, entry_of, off
from torch.overrides import TorchFunctionMode

from precisecache_core.pipelines.diffusers import apply_precisecache


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
