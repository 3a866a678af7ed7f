"""The node refuses bad settings with a clear error; runs that cannot be cached are computed and say so."""

import math

import pytest
import torch
from PreciseCache.nodes.host.obstacles import reason_against_trials
from PreciseCache.nodes.host.parametrization import parametrization_of
from PreciseCache.nodes.lfcache import PreciseCacheLFCache


@pytest.mark.parametrize(
    "settings, setting",
    (
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"preset": "budget", "share": 0.0}, "share"),
        ({"preset": "budget", "share": 1.2}, "share"),
        ({"preset": "budget", "share": math.nan}, "share"),
        ({"factor_t": 0}, "factor_t"),
        ({"factor_hw": -4}, "factor_hw"),
        ({"start_percent": 0.6, "end_percent": 0.5}, "start_percent"),
        ({"cutoff": 0.7}, "cutoff"),
        ({"warmup": 1}, "warmup"),
        ({"reuse": "magic"}, "reuse"),
        ({"preset": "fastest"}, "preset"),
    ),
)
def test_a_bad_setting_names_itself_its_value_and_a_remedy(bench, settings, setting):
    arguments = {"model": bench.model, "preset": "custom", "alpha": 0.5, "share": 0.4} | settings
    with pytest.raises(ValueError) as error:
        PreciseCacheLFCache.execute(**arguments)
    text = str(error.value)
    assert text.startswith(f"PreciseCache: {setting} must be")
    assert repr(settings[setting]) in text and text.endswith(".") and ". " in text


def test_an_input_that_is_no_model_is_refused():
    with pytest.raises(ValueError, match="PreciseCache: model must be a diffusion model"):
        PreciseCacheLFCache.execute(object(), "base", 0.5, 0.4)


@pytest.mark.parametrize("steps", (1, 2, 7))
def test_few_steps_are_computed(bench, steps):
    model = bench.lfcache(alpha=10.0)
    assert torch.equal(bench.sample(model, steps=steps), bench.sample(bench.model, steps=steps))
    run = bench.report(model)
    assert run["reused"] == run["trials"] == 0 and run["computed"] == steps
    assert len(run["warnings"]) == 1 and "too few" in run["warnings"][0]


@pytest.mark.parametrize("shape", ((1, 16, 1, 2, 2), (1, 16, 1, 3, 3)))
def test_a_latent_that_cannot_shrink_is_cached_without_trials(bench, shape):
    noise = bench.noise(shape)
    exact, cached = bench.lfcache(alpha=0.0), bench.lfcache(alpha=10.0)
    assert torch.equal(bench.sample(exact, noise=noise), bench.sample(bench.model, noise=noise))
    assert torch.isfinite(bench.sample(cached, noise=noise)).all()
    run = bench.report(cached)
    assert run["reused"] > 0 and run["trials"] == 0
    assert "too small" in run["warnings"][0] and len(run["warnings"]) == 1


@pytest.mark.parametrize("shape", ((1, 16, 1, 8, 8), (1, 16, 5, 6, 10), (1, 16, 3, 9, 7)))
def test_odd_sizes_and_single_frames_are_cached(bench, shape):
    noise = bench.noise(shape)
    model = bench.lfcache(alpha=1e6)
    assert torch.isfinite(bench.sample(model, noise=noise)).all()
    assert bench.report(model)["reused"] == 7 and not bench.report(model)["warnings"]


def test_lfcache_stands_aside_for_easycache_on_the_same_model(bench):
    from testkit.host_caches import attach_easycache

    both = attach_easycache(bench.lfcache(alpha=10.0), 0.2)
    alone = attach_easycache(bench.model, 0.2)
    assert torch.equal(bench.sample(both, steps=20), bench.sample(alone, steps=20))
    assert "EasyCache" in bench.report(both)["warnings"][0]


def test_packed_latents_are_not_shrunk(bench):
    shapes = [(1, 16, 2, 8, 8), (1, 8, 20)]
    model = parametrization_of(bench.model.model, bench.model.get_model_object("model_sampling"))
    assert "packed" in reason_against_trials(bench.config(), bench.model.model, model, None, shapes)
    assert reason_against_trials(bench.config(), bench.model.model, model, None, shapes[:1]) is None


def test_the_window_keeps_reuse_inside(bench):
    model = bench.lfcache(alpha=10.0, start_percent=0.3, end_percent=0.8, try_every_call=True)
    bench.sample(model, steps=20)
    run = bench.report(model)
    sampling = model.get_model_object("model_sampling")
    high, low = sampling.percent_to_sigma(0.3), sampling.percent_to_sigma(0.8)
    reused = [s for s, d in zip(run["sigmas"], run["decisions"]) if d == "R"]
    assert reused and all(low <= s <= high for s in reused)
    assert run["trials"] == sum(low <= s <= high for s in run["sigmas"])
