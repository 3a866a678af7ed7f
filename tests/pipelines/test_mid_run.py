"""What changes in mid-run: the prompt, the guidance, the transformer."""

from pipes import (
    at_step,
    cogvideox,
    embeddings,
    quiet,
    runner,
    wan,
    wan_two,
)

import pytest
import torch
from own import STEPS, entry_of, off, own_loop, own_pipe

from precisecache_core.pipelines.diffusers import apply_precisecache
from precisecache_core.pipelines.offloading import kept_in_place


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
