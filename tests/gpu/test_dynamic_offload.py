"""The host's dynamic offload: a layer's weights are copied to the GPU when the layer needs them.

`python3 tests/gpu` runs this file twice, in processes of its own: with room for all weights, and
with room for none, so that every call copies them again.
"""

import pytest
import torch
from compatibility.cell import check, relative_error
from compatibility.execution import cells
from conftest import OFFLOAD

from precisecache_core.tiny import bundle

pytestmark = [
    pytest.mark.gpu_only,
    pytest.mark.skipif(not OFFLOAD, reason="needs a process with dynamic offload, which the command starts"),
]


@pytest.fixture(autouse=True)
def is_on():
    import comfy.memory_management

    assert comfy.memory_management.aimdo_enabled, "comfy-aimdo could not be turned on here"


def test_the_model_is_loaded_dynamically(bench):
    assert bench.model.is_dynamic() and bench.model.load_device.type == "cuda"


def test_the_host_says_how_much_is_streamed(bench):
    from PreciseCache.nodes.host.residency import streamed_share

    bench.sample(bench.model, steps=2)
    share = streamed_share(bench.model)
    assert share > 0.5 if OFFLOAD == "full" else share == 0.0


def test_the_latent_is_close_to_that_of_a_model_that_stays_on_the_gpu(bench):
    import comfy.sd

    weights, metadata = bundle.read_weights()

    def sampled(disable_dynamic):
        patcher = comfy.sd.load_diffusion_model_state_dict(
            dict(weights), metadata=metadata, disable_dynamic=disable_dynamic
        )
        assert patcher.is_dynamic() != disable_dynamic
        model = bench.blockcache(bench.lfcache(patcher, alpha=0.5), cache_device="cpu")
        return bench.sample(model, steps=16), bench.report(model)

    (stays, expected), (streamed, entry) = sampled(True), sampled(False)
    assert entry["reused"] > 0 and entry["blockcache"]["block_calls_skipped"] > 0 and entry["warnings"] == []
    assert entry["decisions"] == expected["decisions"]
    assert relative_error(stays, streamed) < 0.02


def test_two_runs_agree(bench):
    model = bench.blockcache(bench.lfcache(alpha=0.5))
    first, second = (bench.sample(model, steps=16) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("cell", [c for c in cells() if c.name.startswith("GPU")], ids=lambda cell: cell.name)
def test_cell(bench, cell):
    check(cell, bench)
