"""Every way of running out of memory ends the cache, not the run; every other error is raised."""

import pytest
import torch
from toys import EAGER, SHAPE, Toy, linear, noise

from precisecache_core import FLOW_MODEL, LFCacheConfig, LFCacheRun, flow_sigmas
from precisecache_core.lfcache.predictions import Predictions
from precisecache_core.memory import is_out_of_memory

ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: str(e)[:12] or type(e).__name__)
@pytest.mark.parametrize("where", ["store", "predict"])
def test_running_out_of_memory_computes_the_rest(monkeypatch, error, where):
    original, calls = getattr(Predictions, where), []

    def failing(*given):
        calls.append(where)
        if len(calls) == 2:
            raise error
        return original(*given)

    monkeypatch.setattr(Predictions, where, failing)
    run, toy, x = LFCacheRun(LFCacheConfig(alpha=EAGER), FLOW_MODEL), Toy(linear), noise()
    for sigma in flow_sigmas(12)[:-1]:
        answer = run.denoised(x, sigma, lambda: toy(x, sigma), toy)
        assert answer.shape == SHAPE and torch.isfinite(answer).all()
    first = {"store": 2, "predict": 5}[where]
    assert "".join(run.journal.decisions[first:]) == "C" * (12 - first) and run.cache_bytes == 0
    assert any("no memory" in warning for warning in run.journal.warnings)


def test_any_other_error_is_raised(monkeypatch):
    error = RuntimeError("The size of tensor a (16) must match")
    assert not is_out_of_memory(error) and not is_out_of_memory(ValueError("out of memory"))
    monkeypatch.setattr(Predictions, "predict", lambda *_: (_ for _ in ()).throw(error))
    run, toy, x = LFCacheRun(LFCacheConfig(alpha=EAGER), FLOW_MODEL), Toy(linear), noise()
    with pytest.raises(RuntimeError, match="must match"):
        for sigma in flow_sigmas(12)[:-1]:
            run.denoised(x, sigma, lambda: toy(x, sigma), toy)
