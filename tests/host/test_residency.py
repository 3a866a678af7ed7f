"""A model whose weights do not fit its device: how much is streamed, and what a run makes of it."""

from types import SimpleNamespace

import comfy.model_patcher
import pytest
import torch
from PreciseCache.nodes.host.residency import streamed_share
from PreciseCache.nodes.lfcache import PreciseCacheLFCache
from PreciseCache.precisecache_core.record.stopwatch import Stopwatch

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
SAID = "because 75 % of the model's weights do not fit the GPU"


class PartlyLoaded(comfy.model_patcher.ModelPatcher):
    """A patcher of which the host has loaded a quarter. Its clones are of the same class."""

    def loaded_size(self):
        return self.model_size() // 4


@pytest.fixture(scope="module")
def streamed(bench):
    """A tiny model with such a patcher, and with an offload device that is another than its own, as on a GPU."""
    model = bench.tiny.load_model()
    model.__class__, model.offload_device = PartlyLoaded, torch.device("cpu", 0)
    return model


@pytest.fixture
def times(monkeypatch):
    """{span: seconds of each}, as a GPU would have measured them; what a run takes here does not count."""
    taken = {"trial": 0.4, "compute": 1.0}

    def finished(stopwatch, name):
        return [taken[name]] * len(stopwatch.spans.get(name, []))

    monkeypatch.setattr(Stopwatch, "finished", finished)
    return taken


def patcher(size=1000, loaded=250, device=GPU, **attributes):
    """What `streamed_share` reads of a patcher."""
    return SimpleNamespace(
        load_device=device,
        offload_device=CPU,
        model=SimpleNamespace(**attributes),
        model_size=lambda: size,
        loaded_size=lambda: loaded,
    )


def pages(allocated, loaded):
    """The address range of dynamic offload."""
    return {GPU: SimpleNamespace(offset=allocated, loaded_size=lambda: loaded)}


@pytest.mark.parametrize(
    "patcher, expected",
    [
        (patcher(), 0.75),
        (patcher(loaded=0), 1.0),
        (patcher(loaded=1000), 0.0),
        (patcher(loaded=1100), 0.0),  # the weights of LoRAs count as loaded
        (patcher(size=0), 0.0),
        (patcher(device=CPU), 0.0),  # nothing is streamed to a CPU
        (patcher(dynamic_vbars=pages(500, 400)), pytest.approx(0.2)),  # cast to half the size of the file
        (patcher(dynamic_vbars=pages(500, 512)), 0.0),  # whole pages
        (patcher(dynamic_vbars={}), 0.75),  # a patcher without dynamic offload, of a host that has it
        (SimpleNamespace(), None),
        (None, None),
    ],
)
def test_streamed_share(patcher, expected):
    assert streamed_share(patcher) == expected


def test_the_hosts_own_patcher_says_how_much_is_loaded(bench, streamed):
    bench.sample(bench.model, steps=2)
    assert bench.model.loaded_size() == bench.model.model_size() > 0
    assert streamed_share(bench.model) == 0.0 and streamed_share(streamed) == 0.75


def test_a_run_of_a_streamed_model_ends_its_trials_and_says_why(bench, streamed, times):
    model = bench.lfcache(streamed, alpha=0.5)
    bench.sample(model, steps=30)
    report = bench.report(model)
    assert report["warnings"] == [f"a trial takes 40 % of a call, {SAID}: reuse is decided without trials"]
    assert (report["trials"], report["uses_trials"]) == (3, False) and report["reused"] > 0


def test_a_model_that_fits_keeps_its_trials(bench, times):
    times["trial"] = 0.2
    model = bench.lfcache(alpha=0.5)
    bench.sample(model, steps=16)
    report = bench.report(model)
    assert report["warnings"] == [] and report["uses_trials"] and report["trials"] > 3


def test_nothing_is_said_on_a_cpu(bench, streamed):
    model = bench.lfcache(streamed, alpha=0.5)
    bench.sample(model, steps=16)
    report = bench.report(model)
    assert report["warnings"] == [] and report["uses_trials"] and report["trial_share"] > 0


def stage(bench, model, sigmas, noise, latent):
    """One of two samplers that share a schedule; returns the latent."""
    return bench.sample(model, steps=len(sigmas) - 1, sigmas=sigmas, noise=noise, latent=latent)


def test_the_second_of_two_samplers_makes_no_trials_and_takes_the_scale_over(bench, streamed, times):
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(bench.model.get_model_object("model_sampling"), "simple", 40)
    noise = bench.noise()
    first = bench.lfcache(streamed, alpha=0.5)
    second = PreciseCacheLFCache.execute(streamed, "custom", 0.5, 0.4, calibrate_from=first).result[0]
    latent = stage(bench, first, sigmas[:21], noise, torch.zeros_like(noise))
    stage(bench, second, sigmas[20:], torch.zeros_like(noise), latent)
    begun, ended = bench.report(first), bench.report(second)
    assert begun["trials"] == 3 and not begun["uses_trials"]
    assert ended["warnings"] == ["the earlier sampler gave up its trials: reuse is decided without trials"]
    assert ended["trials"] == 0 and ended["delta_max"] == begun["delta_max"] and ended["reused"] > 0
