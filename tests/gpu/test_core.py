"""Both caches in the core's own loop on a GPU; needs no ComfyUI."""

import pytest
import torch
from network import SHAPE, STEPS, memory_on, network, prediction_bytes, sampled, synchronisations
from torch.utils._python_dispatch import TorchDispatchMode

from precisecache_core import BlockCacheConfig, LFCacheConfig

HALF = LFCacheConfig(alpha=0.5)


@pytest.mark.parametrize("storage", ("merged", "per_block"))
def test_residuals_on_the_cpu_give_the_same_latent(device, storage):
    latents = []
    for place in ("model", "cpu"):
        model = network(device)
        latent, entry = sampled(model, device, blockcache=BlockCacheConfig(0.5, storage=storage, cache_device=place))
        assert entry["blockcache"]["block_calls_skipped"] > 0 and entry["warnings"] == []
        latents.append(latent)
    assert torch.equal(*latents)
    bare, _ = sampled(network(device), device)
    assert not torch.equal(latents[0], bare), "residuals made no difference: this test cannot fail"


class Copies(TorchDispatchMode):
    """[(is pinned, is non_blocking, bytes)] of every tensor copied from a GPU to the host."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten.copy_.default and args[0].device.type == "cpu" and args[1].device.type == "cuda":
            is_waiting = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            self.made.append((args[0].is_pinned(), not is_waiting, args[0].nbytes))
        return result


@pytest.mark.gpu_only
@pytest.mark.parametrize("storage", ("merged", "per_block"))
def test_residuals_go_to_pinned_memory_without_waiting(device, storage):
    config = BlockCacheConfig(0.5, storage=storage, cache_device="cpu")
    with Copies() as copies:
        sampled(network(device), device, blockcache=config)
    residuals = [copy for copy in copies.made if copy[2] == prediction_bytes()]
    assert residuals and all(is_pinned and is_async for is_pinned, is_async, _ in residuals), copies.made


@pytest.mark.gpu_only
def test_residuals_on_the_cpu_add_no_waits_for_the_gpu(device):
    waits = {}
    for place in ("model", "cpu"):
        with synchronisations() as waits[place]:
            sampled(network(device), device, blockcache=BlockCacheConfig(0.5, cache_device=place))
    assert len(waits["cpu"]) == len(waits["model"]), waits


@pytest.mark.parametrize("reuse", ("fitted", "corrected", "taylor", "prediction", "residual"))
def test_predictions_on_the_cpu_give_the_same_latent(device, reuse):
    (kept, entry), (moved, other) = (
        sampled(network(device), device, lfcache=LFCacheConfig(alpha=0.5, reuse=reuse, cache_device=place))
        for place in ("model", "cpu")
    )
    assert 0 < entry["reused"] < STEPS - 3 and entry["decisions"] == other["decisions"]
    assert kept.device.type == moved.device.type == device.type
    assert torch.equal(kept, moved) and not torch.equal(kept, sampled(network(device), device)[0])


@pytest.mark.gpu_only
@pytest.mark.parametrize("alpha", (0.5, 100.0), ids=("some reused", "all reused after the warm-up"))
@pytest.mark.parametrize("reuse", ("fitted", "prediction"))
def test_one_wait_for_the_gpu_per_call(device, reuse, alpha):
    """Each additional call, computed or reused, adds at most one wait; the other waits of a run, for its
    report, do not depend on its length."""
    waits, entries = {}, {}
    for steps in (STEPS, 2 * STEPS):
        with synchronisations() as waits[steps]:
            _, entries[steps] = sampled(network(device), device, steps, lfcache=LFCacheConfig(alpha=alpha, reuse=reuse))
    assert all(entry["reused"] > 0 for entry in entries.values())
    assert len(waits[STEPS]) >= STEPS, "the counter counts nothing"
    assert len(waits[2 * STEPS]) - len(waits[STEPS]) <= STEPS, waits[2 * STEPS]


def test_seconds_come_from_the_device(device):
    _, entry = sampled(network(device), device, lfcache=HALF)
    seconds = entry["seconds"]
    assert seconds["compute"] > 0 and seconds["trial"] > 0
    assert seconds["compute"] + seconds["trial"] <= seconds["sampling"]


def test_no_memory_is_left_after_a_run(device):
    model = network(device)
    caches = dict(lfcache=HALF, blockcache=BlockCacheConfig(0.5))
    sampled(model, device, **caches)  # by now, libraries have allocated what they keep
    with memory_on(device) as memory:
        latent, entry = sampled(model, device, **caches)
        assert entry["reused"] > 0 and entry["blockcache"]["block_calls_skipped"] > 0
        del latent
    assert memory.peak > 2 * prediction_bytes() and memory.after == 0


@pytest.mark.parametrize(
    "settings, predictions",
    [
        ({"reuse": "fitted"}, 2),
        ({"reuse": "taylor"}, 2),
        ({"reuse": "prediction"}, 1),
        ({"reuse": "fitted", "cache_device": "cpu"}, 0),
    ],
)
def test_lfcache_takes_the_memory_of_its_predictions(device, settings, predictions):
    if device.type == "cpu" and not predictions:
        pytest.skip("needs a GPU: predictions cannot leave the CPU")
    model = network(device, scratch=16)
    sampled(model, device, lfcache=LFCacheConfig(alpha=0.5, **settings))
    with memory_on(device) as bare:
        sampled(model, device)
    with memory_on(device) as cached:
        _, entry = sampled(model, device, lfcache=LFCacheConfig(alpha=0.5, **settings))
    one = prediction_bytes()
    assert predictions == 0 or entry["cache_bytes"]["lfcache"] == predictions * one
    # the rest is the trial's small prediction and the measurement of its LFD
    assert predictions * one <= cached.peak - bare.peak < (predictions + 0.5) * one


def test_the_gpus_latent_is_the_cpus(device):
    """The devices add the same float32 numbers in another order, over the steps of a run without reuse."""
    off = LFCacheConfig(alpha=0.0)
    reference, _ = sampled(network("cpu"), torch.device("cpu"), lfcache=off)
    latent, entry = sampled(network(device), device, lfcache=off)
    assert entry["reused"] == 0 and latent.shape == SHAPE
    assert (latent.cpu() - reference).abs().max() <= 1e-4 * reference.abs().max()
