"""Two GPUs: a run on the second one, and the host's MultiGPU CFG Split."""

import pytest
import torch
from network import network, sampled

from precisecache_core import BlockCacheConfig, LFCacheConfig

pytestmark = [
    pytest.mark.gpu_only,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason=f"needs two GPUs, {torch.cuda.device_count()} found"),
]

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


@pytest.mark.parametrize("place", ("model", "cpu"))
def test_a_run_on_the_second_gpu(place):
    """The first GPU stays the current device, so that events and copies must name the second."""
    caches = dict(
        lfcache=LFCacheConfig(alpha=0.5, cache_device=place), blockcache=BlockCacheConfig(0.5, cache_device=place)
    )
    (here, entry), (there, other) = (sampled(network(device), device, **caches) for device in (FIRST, SECOND))
    assert torch.cuda.current_device() == 0 and there.device == SECOND
    assert entry["decisions"] == other["decisions"] and "R" in entry["decisions"]
    assert other["blockcache"]["block_calls_skipped"] > 0 and other["seconds"]["compute"] > 0
    assert (here.cpu() - there.cpu()).abs().max() <= 1e-5 * here.abs().max().item()


def test_multigpu_cfg_split(request):
    nodes = pytest.importorskip("comfy_extras.nodes_multigpu", reason="needs a ComfyUI with MultiGPU CFG Split")
    bench = request.getfixturevalue("bench")
    caches = bench.blockcache(bench.lfcache(alpha=0.2), cache_device="cpu")
    alone = bench.sample(caches, steps=16)
    expected = bench.report(caches)

    split = nodes.MultiGPUCFGSplitNode.execute(caches, 2).args[0]
    clones = split.get_additional_models_with_key("multigpu")
    assert [clone.load_device for clone in clones] == [SECOND]
    seen = set()
    for network_of in (split.model, clones[0].model):
        network_of.diffusion_model.register_forward_pre_hook(lambda module, given: seen.add(given[0].device))
    latent = bench.sample(split, steps=16)
    entry = bench.report(split)
    assert seen == {FIRST, SECOND}
    assert entry["warnings"] == [] and entry["reused"] > 0 and entry["blockcache"]["block_calls_skipped"] > 0
    assert entry["calls"] == expected["calls"]
    # each branch is a batch of its own, which rounds differently in half precision, over sixteen steps at cfg 4
    assert relative_error(alone, latent) < 0.1


def relative_error(reference, other):
    return ((other - reference).float().square().mean() / reference.float().square().mean()).sqrt().item()
