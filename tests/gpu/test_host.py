"""Both caches in a real ComfyUI that has the GPU."""

import gc
from contextlib import contextmanager
from unittest import mock

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import pytest
import torch
from compatibility.cell import Skip, check, relative_error
from compatibility.execution import cells
from network import memory_on, synchronisations
from torch._dynamo.utils import counters

from precisecache_core.tiny import bundle

STEPS = 16
EPS = torch.finfo(torch.float16).eps

# tested elsewhere: two devices in test_two_devices.py, torch.compile below, offload in test_dynamic_offload.py
ELSEWHERE = ("MultiGPU CFG Split, two threads", "torch.compile", "GPU, dynamic offload")


@pytest.mark.parametrize("cell", [c for c in cells() if c.name not in ELSEWHERE], ids=lambda cell: cell.name)
def test_cell(bench, cell):
    try:
        check(cell, bench)
    except Skip as reason:
        pytest.skip(str(reason))


def both(bench, model=None, place="model"):
    """A model with both caches, set so that each of them acts in a run of STEPS steps."""
    return bench.blockcache(bench.lfcache(model, alpha=0.5, cache_device=place), cache_device=place)


def sampled(bench, model):
    """(latent, report entry) of a run in which both caches acted."""
    latent = bench.sample(model, steps=STEPS)
    entry = bench.report(model)
    assert 0 < entry["reused"] < entry["calls"] - 3 and entry["warnings"] == []
    assert entry["blockcache"]["block_calls_skipped"] > 0
    return latent, entry


def load(**options):
    """The tiny model through the stock loader with options of UNETLoader."""
    weights, metadata = bundle.read_weights()
    return comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options=options, metadata=metadata)


def test_the_model_is_on_the_device(bench, device):
    bench.sample(bench.model, steps=2)
    assert bench.model.load_device.type == device.type
    assert next(bench.model.model.diffusion_model.parameters()).device.type == device.type


def test_caches_on_the_cpu_give_the_same_latent(bench):
    (kept, entry), (moved, other) = (sampled(bench, both(bench, place=place)) for place in ("model", "cpu"))
    assert torch.equal(kept, moved) and entry["decisions"] == other["decisions"]
    assert entry["cache_bytes"] == other["cache_bytes"]


@contextmanager
def room_for(share):
    """While inside, the host keeps at most this share of a model's weights on the device."""
    load_partly = comfy.model_patcher.ModelPatcher.partially_load

    def partially_load(patcher, device_to, extra_memory=0, force_patch_weights=False):
        room = share * patcher.model_size() - patcher.model.model_loaded_weight_memory
        return load_partly(patcher, device_to, min(extra_memory, room), force_patch_weights=force_patch_weights)

    comfy.model_management.unload_all_models()
    try:
        with mock.patch.object(comfy.model_patcher.ModelPatcher, "partially_load", partially_load):
            yield
    finally:
        comfy.model_management.unload_all_models()


@pytest.mark.parametrize("share", (0.5, 0.01))
@pytest.mark.parametrize("place", ("model", "cpu"))
def test_a_model_that_fits_only_in_part(bench, share, place):
    model = both(bench, place=place)
    whole, entry = sampled(bench, model)
    with room_for(share):
        partly, other = sampled(bench, model)
        assert model.model.model_lowvram and model.loaded_size() < (share + 0.1) * model.model_size()
    assert entry["decisions"] == other["decisions"]
    # the same weights, cast when a layer is called
    assert relative_error(whole, partly) <= 16 * EPS
    again, _ = sampled(bench, model)
    assert torch.equal(again, whole), "the whole model gives a different latent after it was loaded in part"


def with_lora(bench, model):
    from compatibility.conditioning import lora_patches

    model = model.clone()
    model.add_patches(lora_patches(bench), 0.5)
    return model


def test_a_lora_on_a_model_that_fits_only_in_part(bench):
    model = with_lora(bench, both(bench))
    whole, _ = sampled(bench, model)
    with room_for(0.5):
        partly, _ = sampled(bench, model)
    # weights are patched when a layer is called, in another precision
    assert relative_error(whole, partly) < 0.05


@pytest.mark.parametrize("is_fast", (False, True), ids=("fp8_e4m3fn", "fp8_e4m3fn_fast"))
def test_fp8_weights(bench, is_fast):
    model = load(dtype=torch.float8_e4m3fn, **({"fp8_optimizations": True} if is_fast else {}))
    stored = {p.dtype for p in model.model.diffusion_model.parameters()}
    assert torch.float8_e4m3fn in stored
    bare = bench.sample(model, steps=STEPS)
    off = bench.blockcache(bench.lfcache(model, alpha=0.0), cache_rate=0.0)
    assert torch.equal(bench.sample(off, steps=STEPS), bare)
    caches = both(bench, model, place="cpu")
    latent, _ = sampled(bench, caches)
    again, _ = sampled(bench, caches)
    assert torch.equal(latent, again) and torch.isfinite(latent).all()


@pytest.mark.gpu_only
@pytest.mark.parametrize("order", ("compile last", "compile first"))
def test_torch_compile(bench, order):
    """The stock TorchCompileModel with inductor, in float32, so that decisions do not depend on rounding."""
    nodes = pytest.importorskip("comfy_extras.nodes_torch_compile")

    def compiled(model):
        return nodes.TorchCompileModel.execute(model, "inductor").args[0]

    def graphs():
        return counters["stats"]["unique_graphs"]

    def forget():
        torch._dynamo.reset()
        counters.clear()

    plain = load(dtype=torch.float32)
    eager, expected = sampled(bench, both(bench, plain))
    forget()
    model = compiled(both(bench, plain)) if order == "compile last" else both(bench, compiled(plain))
    latent, entry = sampled(bench, model)
    first = graphs()
    again, _ = sampled(bench, model)
    assert graphs() == first > 0, "a second run compiled something again"
    assert torch.equal(latent, again) and entry["decisions"] == expected["decisions"]
    # float32 in another order of operations, over sixteen steps at cfg 4
    assert (latent - eager).abs().max() < 1e-3 * eager.abs().max()
    forget()


def test_seconds_come_from_the_device(bench):
    _, entry = sampled(bench, both(bench))
    seconds = entry["seconds"]
    assert seconds["compute"] > 0 and seconds["trial"] > 0
    assert seconds["compute"] + seconds["trial"] <= seconds["sampling"]


@pytest.mark.parametrize("place", ("model", "cpu"))
def test_no_memory_is_left_after_a_run(bench, device, place):
    model = both(bench, place=place)
    sampled(bench, model)  # by now the model is loaded, and libraries have allocated what they keep
    with memory_on(device) as memory:
        sampled(bench, model)
        gc.collect()
    assert memory.after == 0 and memory.peak > 0


@pytest.mark.gpu_only
def test_a_reused_step_waits_for_the_gpu_once(bench):
    """A bare run shows the host's own waits in a step; a reused step may add one wait, for the decision."""

    def waits_of_steps(model):
        counts = []
        with synchronisations() as waits:
            bench.sample(model, steps=STEPS, callback=lambda *step: counts.append(len(waits)))
        return [after - before for before, after in zip(counts, counts[1:])], waits

    bare, _ = waits_of_steps(bench.model)
    model = bench.lfcache(alpha=0.5)
    cached, waits = waits_of_steps(model)
    decisions = bench.report(model)["decisions"]
    assert "R" in decisions
    # a step's callback comes after its call
    reused = [count for count, decision in zip(cached, decisions[1:]) if decision == "R"]
    assert max(reused) <= max(bare) + 1, (decisions, bare, cached, waits)
