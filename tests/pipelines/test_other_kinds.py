"""Transformers of other kinds, and failures in the caches: right, or aside with a line."""

from pipes import embeddings, wan

import pytest
import torch
from own import entry_of, off, own_loop, own_pipe

from precisecache_core.cached_run import CachedRun
from precisecache_core.pipelines.adapters import ADAPTERS, Adapter, WanAdapter, WanImageAdapter
from precisecache_core.pipelines.branches import Branches
from precisecache_core.pipelines.diffusers import apply_precisecache


def test_a_transformer_that_returns_a_bare_tensor():
    pipe = own_pipe()
    plain = own_loop(pipe)
    with apply_precisecache(pipe) as cache:
        assert off(own_loop(pipe), plain) < 0.05
    assert entry_of(cache)["reused"]


def test_a_call_before_the_scheduler_has_timesteps_is_computed():
    pipe = own_pipe()
    x = embeddings(0, 1, 4, 8, 8)
    with apply_precisecache(pipe) as cache:
        pipe.scheduler.timesteps = None
        assert torch.equal(pipe.transformer(x, torch.ones(1)), x * 0.5)
    assert cache.report()["runs"] == []


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
