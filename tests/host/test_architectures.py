"""Both caches on every supported architecture, with small random weights."""

import comfy.sample
import comfy.samplers
import pytest
import torch

from testkit.architectures import ARCHITECTURES, Unsupported, conditioning, load
from testkit.frozen import frozen_answers


def sample(model, name, steps=12, shape=None):
    shape = shape or ARCHITECTURES[name].latent
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    if name == "cogvideox":  # its sampler takes a latent whose noise is not scaled
        from comfy_extras.nodes_void import VOIDSampler

        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
        return comfy.sample.sample_custom(
            model,
            noise,
            3.0,
            VOIDSampler.execute().args[0],
            sigmas,
            conditioning(name, 1),
            conditioning(name, 2),
            torch.zeros(shape),
            disable_pbar=True,
            seed=0,
        )
    return comfy.sample.sample(
        model,
        noise,
        steps,
        3.0,
        "euler",
        "simple",
        conditioning(name, 1),
        conditioning(name, 2),
        torch.zeros(shape),
        disable_pbar=True,
        seed=0,
    )


@pytest.fixture(params=[name for name, spec in ARCHITECTURES.items() if spec.blocks])
def name(request):
    try:
        load(request.param)
    except Unsupported as reason:
        pytest.skip(str(reason))
    return request.param


def test_rate_zero_equals_the_bare_model_and_blocks_are_found(bench, name):
    bare = load(name)
    model = bench.blockcache(bare, cache_rate=0.0)
    assert torch.equal(sample(model, name), sample(bare, name))
    assert bench.report(model)["blockcache"]["blocks"] == ARCHITECTURES[name].blocks


@pytest.mark.parametrize("storage", ("merged", "per_block"))
def test_frozen_inputs_give_the_computed_answer(bench, name, storage):
    model = bench.blockcache(load(name), storage=storage)
    noise = torch.randn(ARCHITECTURES[name].latent, generator=torch.Generator().manual_seed(3))
    answers = frozen_answers(model, noise, conditioning(name, 1), conditioning(name, 2), calls=8)
    assert bench.report(model)["blockcache"]["block_calls_skipped"] > 0
    for answer in answers[1:]:
        assert (answer - answers[0]).abs().max() < 1e-5 * answers[0].abs().max()


def test_blocks_are_skipped_and_nothing_stays_patched(bench, name):
    bare = load(name)
    before = sample(bare, name)
    for storage in ("merged", "per_block"):
        model = bench.blockcache(bare, storage=storage)
        out = sample(model, name)
        run = bench.report(model)
        assert torch.isfinite(out).all() and run["warnings"] == []
        assert run["blockcache"]["block_calls_skipped"] > 0
        assert not torch.equal(out, before)
    assert torch.equal(sample(bare, name), before)


def test_both_caches_together(bench, name):
    model = bench.lfcache(bench.blockcache(load(name)), alpha=1.0)
    out = sample(model, name, steps=16)
    run = bench.report(model)
    assert torch.isfinite(out).all() and run["warnings"] == []
    assert run["reused"] > 0 and run["blockcache"]["blocks"] == ARCHITECTURES[name].blocks


def test_trials_hold_whole_patches(bench, name):
    # as with 480 rows of video, the sides are divisible by the factor, but not by factor times patch
    shape = (*ARCHITECTURES[name].latent[:-2], 12, 20)
    model = bench.lfcache(load(name), alpha=1.0)
    out = sample(model, name, steps=16, shape=shape)
    run = bench.report(model)
    assert torch.isfinite(out).all() and run["warnings"] == []
    assert run["reused"] > 0 and run["trials"] > run["computed"]


def test_an_error_in_a_swapped_block_restores_every_forward(bench):
    try:
        bare = load("cogvideox")
    except Unsupported as reason:
        pytest.skip(str(reason))
    blocks = bare.model.diffusion_model.blocks
    handle = blocks[5].register_forward_pre_hook(fail_at_fifth_call())
    try:
        with pytest.raises(RuntimeError, match="broken block"):
            sample(bench.blockcache(bare), "cogvideox")
    finally:
        handle.remove()
    assert all("forward" not in vars(block) for block in blocks)


def fail_at_fifth_call():
    calls = []

    def hook(module, args):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("broken block")

    return hook
