"""A trial's conditioning: it shrinks with the latent, and its time ranges are decided at the true sigma."""

import comfy.conds
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from PreciseCache.nodes.host.conditioning import UnshrinkableConditioning, has_gates, open_gates, shrink_conds

SHAPE, SMALL, FACTORS = torch.Size((1, 16, 4, 16, 16)), torch.Size((1, 16, 2, 4, 4)), (2, 4, 4)


def shrink(cond):
    conds = shrink_conds({"positive": [{"model_conds": {}} | cond]}, SHAPE, SMALL, FACTORS, (1, 2, 2))
    return conds["positive"][0]


def test_latent_shaped_inputs_shrink_and_text_does_not():
    text = comfy.conds.CONDCrossAttn(torch.randn(1, 3, 64))
    image = comfy.conds.CONDNoiseShape(torch.randn(1, 20, 4, 16, 16))
    vace = comfy.conds.CONDRegular(torch.randn(1, 2, 96, 4, 16, 16))
    reference = comfy.conds.CONDRegular(torch.randn(1, 16, 16, 16))
    small = shrink(
        {"model_conds": {"c_crossattn": text, "c_concat": image, "vace_context": vace, "reference_latent": reference}}
    )["model_conds"]
    assert small["c_crossattn"] is text
    assert small["c_concat"].cond.shape == (1, 20, 2, 4, 4)
    assert torch.allclose(small["c_concat"].cond[0, 0, 0, 0, 0], image.cond[0, 0, :2, :4, :4].mean())
    assert small["vace_context"].cond.shape == (1, 2, 96, 2, 4, 4)
    assert torch.allclose(small["vace_context"].cond[0, 1, 5, 1, 2, 3], vace.cond[0, 1, 5, 2:, 8:12, 12:].mean())
    assert small["reference_latent"].cond.shape == (1, 16, 4, 4)


def test_areas_and_masks_shrink():
    small = shrink({"area": (4, 8, 8, 0, 8, 4), "mask": torch.ones(1, 4, 16, 16)})
    assert small["area"] == (2, 2, 2, 0, 2, 1)
    assert small["mask"].shape == (1, 2, 4, 4) and (small["mask"] == 1).all()
    assert shrink({"area": (16, 5, 0, 11)})["area"] == (4, 2, 0, 2)
    assert shrink({"mask": torch.ones(1, 16, 16)})["mask"].shape[-2:] == (4, 4)


def test_an_input_that_cannot_shrink_is_named():
    odd = comfy.conds.CONDNoiseShape(torch.randn(1, 20, 7, 3, 3))
    with pytest.raises(UnshrinkableConditioning, match="odd_one"):
        shrink({"model_conds": {"odd_one": odd}})


def test_gates_are_decided_at_the_true_sigma():
    early = {"model_conds": {}, "timestep_start": 1.0, "timestep_end": 0.5}
    late = {"model_conds": {}, "timestep_start": 0.5, "timestep_end": 0.0, "control": object()}
    conds = {"positive": [early, late]}
    assert has_gates(conds)
    assert open_gates(conds, 0.8) == {"positive": [{"model_conds": {}}]}
    assert open_gates(conds, 0.2) == {"positive": [{"model_conds": {}}]}
    assert "control" in late


def with_entries(conditioning, **entries):
    return [[tensor, {**values, **entries}] for tensor, values in conditioning]


@pytest.mark.parametrize(
    "name, entries",
    (
        ("area", {"area": (8, 8, 0, 8), "strength": 0.7}),
        ("mask", {"mask": torch.rand(1, 64, 64), "mask_strength": 1.0}),
        ("early", {"start_percent": 0.0, "end_percent": 0.4}),
        ("late", {"start_percent": 0.4, "end_percent": 1.0}),
    ),
)
def test_a_run_with_regional_or_timed_prompts_is_cached(bench, name, entries):
    """Two prompts, one of them restricted: alpha 0 is exact, and with reuse the latent is finite."""
    whole, other = bench.positive, bench.tiny.conditioning("square", "blue", "left")
    noise = bench.noise((1, 16, 2, 16, 16))
    try:
        bench.positive = whole + with_entries(other, **entries)
        bare = bench.sample(bench.model, steps=12, noise=noise)
        exact, cached = bench.lfcache(alpha=0.0), bench.lfcache(alpha=1.0)
        assert torch.equal(bench.sample(exact, steps=12, noise=noise), bare)
        latent = bench.sample(cached, steps=12, noise=noise)
        run = bench.report(cached)
        assert run["reused"] > 0 and run["warnings"] == []
        assert torch.isfinite(latent).all()
    finally:
        bench.positive = whole


def test_inpainting_is_cached(bench):
    noise, latent = bench.noise(), bench.noise(seed=5) * 0.5
    mask = torch.zeros(1, 1, 2, 8, 8)
    mask[..., 4:] = 1
    exact, cached = bench.lfcache(alpha=0.0), bench.lfcache(alpha=1.0)
    ask = {"steps": 12, "noise": noise, "latent": latent, "noise_mask": mask}
    assert torch.equal(bench.sample(exact, **ask), bench.sample(bench.model, **ask))
    out = bench.sample(cached, **ask)
    assert bench.report(cached)["reused"] > 0
    assert torch.allclose(out[..., :4], latent[..., :4], atol=1e-5)


def test_post_cfg_functions_do_not_see_trials(bench):
    """A stateful post-cfg function is called for computed calls only, always at full size."""
    seen = []
    model = bench.lfcache(alpha=1.0).clone()
    model.set_model_sampler_post_cfg_function(lambda args: (seen.append(args["input"].shape), args["denoised"])[1])
    bench.sample(model)
    run = bench.report(model)
    assert run["reused"] > 0 and len(seen) == run["computed"]
    assert set(seen) == {bench.noise().shape}


def test_a_trial_is_small_and_marked(bench):
    """The network sees the trial's latent at a lower noise level, flagged for other patches."""
    seen = []
    model = bench.lfcache(alpha=0.0).clone()

    def network(executor, x, timestep, *args, **kwargs):
        options = next(a for a in (*args, kwargs.get("transformer_options")) if isinstance(a, dict))
        seen.append((x.shape[2:], options.get("precisecache_trial", False), timestep[0].item()))
        return executor(x, timestep, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", network)
    bench.sample(model)
    trials, calls = [s for s in seen if s[1]], [s for s in seen if not s[1]]
    assert len(trials) == len(calls) == 10
    assert {s[0] for s in trials} == {(1, 2, 2)} and {s[0] for s in calls} == {(2, 8, 8)}
    assert trials[0][2] == pytest.approx(calls[0][2])  # pure noise keeps its noise level
    assert all(t[2] < c[2] for t, c in zip(trials[1:], calls[1:]))
