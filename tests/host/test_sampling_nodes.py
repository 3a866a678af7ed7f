"""The stock sampling nodes, called as a graph calls them."""

import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler as custom


@pytest.fixture(scope="module")
def stock():
    """The host's module `nodes`, not the pack's folder of that name."""
    import nodes

    assert hasattr(nodes, "KSampler")
    return nodes


def latent(bench):
    return {"samples": torch.zeros_like(bench.noise())}


@pytest.mark.parametrize("alpha", (0.0, 1.0))
def test_ksampler(bench, stock, alpha):
    model = bench.lfcache(alpha=alpha)
    ask = (3, 12, 4.0, "euler", "simple", bench.positive, bench.negative, latent(bench))
    (cached,) = stock.KSampler().sample(model, *ask)
    (bare,) = stock.KSampler().sample(bench.model, *ask)
    assert torch.equal(cached["samples"], bare["samples"]) == (alpha == 0.0)
    assert bench.report(model)["steps"] == 12


def test_ksampler_advanced_in_two_stages(bench, stock):
    model = bench.lfcache(alpha=0.0)

    def stages(model):
        (first,) = stock.KSamplerAdvanced().sample(
            model,
            "enable",
            3,
            24,
            4.0,
            "euler",
            "simple",
            bench.positive,
            bench.negative,
            latent(bench),
            0,
            12,
            "enable",
        )
        return stock.KSamplerAdvanced().sample(
            model, "disable", 3, 24, 4.0, "euler", "simple", bench.positive, bench.negative, first, 12, 24, "disable"
        )[0]["samples"]

    assert torch.equal(stages(model), stages(bench.model))
    attachment = bench.attachment.attachment_of(model)
    assert [run["steps"] for run in bench.reports.runs_of(attachment.id)] == [12, 12]


def run_custom(bench, model, guider):
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 12)
    sampler = comfy.samplers.sampler_object("euler")
    noise = custom.Noise_RandomNoise(3)
    node = custom.SamplerCustomAdvanced
    sample = getattr(node, "execute", None) or node().sample  # the oldest supported host has a node of the older kind
    return sample(noise, guider, sampler, sigmas, latent(bench))[0]["samples"]


def guiders(bench, model):
    cfg = custom.Guider_Basic(model)
    cfg.set_conds(bench.positive)
    yield "basic", cfg
    cfg = comfy.samplers.CFGGuider(model)
    cfg.set_conds(bench.positive, bench.negative)
    cfg.set_cfg(4.0)
    yield "cfg", cfg
    dual = custom.Guider_DualCFG(model)
    dual.set_conds(bench.positive, bench.tiny.conditioning("square", "blue", "left"), bench.negative)
    dual.set_cfg(3.0, 2.0)
    yield "dual", dual


@pytest.mark.parametrize("alpha", (0.0, 1.0))
def test_sampler_custom_advanced_with_every_kind_of_guider(bench, alpha):
    model = bench.lfcache(alpha=alpha)
    for (name, cached), (_, bare) in zip(guiders(bench, model), guiders(bench, bench.model)):
        a, b = run_custom(bench, model, cached), run_custom(bench, bench.model, bare)
        assert torch.equal(a, b) == (alpha == 0.0), name
        assert torch.isfinite(a).all()
        assert (bench.report(model)["reused"] > 0) == (alpha > 0), name
