"""Both caches under the stock TorchCompileModel node, with inductor on the CPU."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")


def compiled(model):
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    return TorchCompileModel.execute(model, "inductor").args[0]


def forget():
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture(autouse=True)
def fresh_dynamo(monkeypatch):
    # the host's CPU attention reads the free memory outside the graph, and compiles again when it changed
    import comfy.model_management

    free = 8 << 30
    monkeypatch.setattr(
        comfy.model_management, "get_free_memory",
        torch.compiler.disable(lambda dev=None, torch_free_too=False: (free, free) if torch_free_too else free))
    forget()
    yield
    forget()


def graphs():
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("order", ("compile last", "compile first"))
def test_both_caches_under_torch_compile(bench, order):
    caches = bench.blockcache(bench.lfcache(alpha=0.5))
    eager = bench.sample(caches, steps=16)
    bench.sample(compiled(bench.model), steps=16)
    bare = graphs()
    forget()
    bench.sample(compiled(bench.blockcache()), steps=16)
    assert graphs() == bare, "BlockCache made torch.compile compile more than the model"
    forget()

    if order == "compile last":
        model = compiled(caches)
    else:
        model = bench.blockcache(bench.lfcache(compiled(bench.model), alpha=0.5))
    out = bench.sample(model, steps=16)
    run = bench.report(model)
    assert run["reused"] > 0 and run["blockcache"]["block_calls_skipped"] > 0 and run["warnings"] == []
    # float32 through another order of operations, sixteen steps at cfg 4
    assert (out - eager).abs().max() < 5e-4 * eager.abs().max()
    # the model once more for the shape of the trials, nothing for the caches
    assert graphs() <= 2 * bare
    first = graphs()
    bench.sample(model, steps=16, noise=bench.noise(seed=5))
    assert graphs() == first, "a second run compiled something again"
