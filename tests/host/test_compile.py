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
    # what the host uses on most GPUs: its CPU attention cuts every graph, and compiles again as free memory changes
    import comfy.ldm.wan.model
    from comfy.ldm.modules.attention import attention_pytorch

    monkeypatch.setattr(comfy.ldm.wan.model, "optimized_attention", attention_pytorch)
    forget()
    yield
    forget()


def graphs():
    return counters["stats"]["unique_graphs"]


def test_both_caches_under_torch_compile(bench, bare):
    caches = bench.blockcache(bench.lfcache(bare, alpha=10.0))
    eager = sample(caches)
    compiled_first = bench.blockcache(bench.lfcache(compiled(bare), alpha=10.0))
    for model in (compiled(caches), compiled_first):
        forget()
        out = sample(model)
        run = bench.report(model)
        assert run["reused"] > 0 and run["blockcache"]["block_calls_skipped"] > 0 and run["warnings"] == []
        # float32 through another order of operations, sixteen steps
        assert (out - eager).abs().max() < 5e-4 * eager.abs().max()
        first = graphs()
        sample(model, seed=5)
        assert graphs() == first > 0, "a second run compiled something again"


def test_lfcache_compiles_the_model_once_more_for_its_trials(bench, bare):
    sample(compiled(bare))
    alone = graphs()
    forget()
    sample(compiled(bench.lfcache(bare, alpha=10.0)))
    assert 0 < graphs() <= 2 * alone


def test_blockcache_cuts_the_graph_at_the_blocks_which_share_theirs(bench, bare):
    counts = []
    for model in (bare, load(NAME, num_layers=5)):
        forget()
        sample(compiled(bench.blockcache(model)))
        counts.append(graphs())
    assert counts[0] == counts[1] > 0, "the number of graphs grows with that of the blocks"


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductors_code_gives_what_the_bare_blocks_give(bench, bare):
    # without trials there is one shape to compile for
    caches = bench.blockcache(bench.lfcache(bare, alpha=1.0, factor_t=1, factor_hw=1))
    eager, out = sample(caches), sample(compiled(caches, "inductor"))
    run = bench.report(caches)
    assert run["reused"] > 0 and run["blockcache"]["block_calls_skipped"] > 0
    assert graphs() > 0 and (out - eager).abs().max() < 5e-4 * eager.abs().max()
