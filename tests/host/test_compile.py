"""Both caches under the stock TorchCompileModel node: what is traced into graphs, and inductor's code on the CPU."""

import shutil

import comfy.sample
import pytest
import torch
from torch._dynamo.utils import counters

from testkit.architectures import ARCHITECTURES, conditioning, load

NAME = "wan2.1 t2v"
STEPS = 16


@pytest.fixture(scope="module")
def bare():
    """Few blocks: every one is traced and compiled."""
    return load(NAME, num_layers=3)


def sample(model, seed=3):
    noise = torch.randn(ARCHITECTURES[NAME].latent, generator=torch.Generator().manual_seed(seed))
    return comfy.sample.sample(
        model,
        noise,
        STEPS,
        3.0,
        "euler",
        "simple",
        conditioning(NAME, 1),
        conditioning(NAME, 2),
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=0,
    )


def compiled(model, backend="eager"):
    """The model compiled; `eager` runs the graphs without a compiler behind them."""
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    return TorchCompileModel.execute(model, backend).args[0]


def forget():
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture(autouse=True)
def fresh_dynamo(monkeypatch):
    # the host's CPU attention reads the free memory outside the graph, and compiles again when it changed
    import comfy.model_management

    free = 8 << 30
    monkeypatch.setattr(
        comfy.model_management,
        "get_free_memory",
        torch.compiler.disable(lambda dev=None, torch_free_too=False: (free, free) if torch_free_too else free),
    )
    forget()
    yield
    forget()


def graphs():
    return counters["stats"]["unique_graphs"]


def test_both_caches_under_torch_compile(bench, bare):
    caches = bench.blockcache(bench.lfcache(bare, alpha=10.0))
    eager = sample(caches)
    sample(compiled(bare))
    alone = graphs()
    forget()
    sample(compiled(bench.blockcache(bare)))
    assert graphs() == alone, "BlockCache made torch.compile compile more than the model"

    compiled_first = bench.blockcache(bench.lfcache(compiled(bare), alpha=10.0))
    for model in (compiled(caches), compiled_first):
        forget()
        out = sample(model)
        run = bench.report(model)
        assert run["reused"] > 0 and run["blockcache"]["block_calls_skipped"] > 0 and run["warnings"] == []
        # float32 through another order of operations, sixteen steps
        assert (out - eager).abs().max() < 5e-4 * eager.abs().max()
        # the model once more for the shape of the trials, nothing for the caches
        assert 0 < graphs() <= 2 * alone
        first = graphs()
        sample(model, seed=5)
        assert graphs() == first, "a second run compiled something again"


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductors_code_gives_what_the_bare_blocks_give(bench, bare):
    # without trials there is one shape to compile for
    caches = bench.blockcache(bench.lfcache(bare, alpha=1.0, factor_t=1, factor_hw=1))
    eager, out = sample(caches), sample(compiled(caches, "inductor"))
    run = bench.report(caches)
    assert run["reused"] > 0 and run["blockcache"]["block_calls_skipped"] > 0
    assert graphs() > 0 and (out - eager).abs().max() < 5e-4 * eager.abs().max()
