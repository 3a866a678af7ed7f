"""With reuse off, a graph with LFCache gives the very same latent as one without."""

import pytest
import torch

SAMPLERS = ("euler", "uni_pc", "dpmpp_2m", "heun", "er_sde")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_alpha_zero_equals_the_bare_model(bench, sampler):
    model = bench.lfcache(alpha=0.0)
    assert torch.equal(bench.sample(model, sampler), bench.sample(bench.model, sampler))
    run = bench.report(model)
    assert run["reused"] == 0 and run["computed"] == run["calls"] == run["trials"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_runs_agree_and_something_is_reused(bench, sampler):
    model = bench.lfcache(alpha=2.0)
    first = bench.sample(model, sampler)
    assert torch.equal(first, bench.sample(model, sampler))
    assert torch.isfinite(first).all()
    assert bench.report(model)["reused"] > 0
