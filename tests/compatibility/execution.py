"""Ways in which the host runs a model, and other changes to the MODEL."""

import threading
from contextlib import contextmanager

import comfy.context_windows
import comfy.model_management
import comfy.ops
import comfy.sd
import torch
from PreciseCache.nodes.host.tiny_model import load_model
from PreciseCache.precisecache_core.tiny import bundle

from compatibility.cell import COMPUTED, Cell, Skip
from compatibility.conditioning import lora_patches
from compatibility.stock import stock
from testkit.host_caches import attach_easycache, attach_lazycache

STEPS = 16


def sample(bench, model, **options):
    return bench.sample(model, **{"steps": STEPS, **options})


def before(change):
    """A cell's run in which `change(bench, model)` is applied before our node."""
    return lambda bench, attach: sample(bench, attach(change(bench, bench.model)))


def after(change):
    """A cell's run in which `change(bench, model)` is applied after our node."""
    return lambda bench, attach: sample(bench, change(bench, attach(bench.model)))


def with_lora(bench, model):
    model = model.clone()
    model.add_patches(lora_patches(bench), 0.5)
    return model


def merged(bench, model):
    return stock(
        "comfy_extras.nodes_model_merging",
        "ModelMergeSimple",
        model1=model,
        ratio=0.9,
        model2=with_lora(bench, bench.model),
    )


def shifted(bench, model):
    return stock("comfy_extras.nodes_model_advanced", "ModelSamplingSD3", model=model, shift=3.0)


def cfg_zero(bench, model):
    return stock("comfy_extras.nodes_cfg", "CFGZeroStar", model=model)


def cloned(bench, model):
    return model.clone().clone()


def windowed(bench, attach):
    def windows(model):
        model = model.clone()
        model.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
            comfy.context_windows.get_matching_context_schedule("standard_static"),
            comfy.context_windows.get_matching_fuse_method("pyramid"),
            context_length=4,
            context_overlap=2,
            dim=2,
        )
        return model

    return sample(bench, windows(attach(bench.model)), noise=bench.noise((1, 16, 8, 8, 8)))


def split_guidance(bench, attach):
    """MultiGPU CFG Split over two devices, both the CPU; each branch has its own thread and copy of the weights."""
    model = attach(bench.model).clone()
    if not hasattr(model, "match_multigpu_clones"):
        raise Skip("this host has no MultiGPU CFG Split")
    other = load_model()
    other.load_device = torch.device("cpu", 0)
    other.is_multigpu_base_clone = True
    model.set_additional_models("multigpu", [other])
    model.match_multigpu_clones()
    threads = set()
    handle = other.model.diffusion_model.register_forward_pre_hook(lambda *given: threads.add(threading.get_ident()))
    try:
        latent = sample(bench, model)
    finally:
        handle.remove()
    assert threads and threading.get_ident() not in threads, "the second device was not used by a thread of its own"
    return latent


@contextmanager
def cast_for_every_call(model):
    """Every layer casts its weights when it is called, as in a model that does not fit into memory."""
    layers = [m for m in model.model.modules() if hasattr(m, "comfy_cast_weights")]
    kept = [layer.comfy_cast_weights for layer in layers]
    try:
        for layer in layers:
            layer.comfy_cast_weights = True
        yield
    finally:
        for layer, cast in zip(layers, kept):
            layer.comfy_cast_weights = cast


def low_vram(bench, attach):
    with cast_for_every_call(bench.model):
        return sample(bench, attach(bench.model))


def loaded(**options):
    """A cell's run: the host loads the tiny model with these options."""

    def run(bench, attach):
        weights, metadata = bundle.read_weights()
        try:
            model = comfy.sd.load_diffusion_model_state_dict(weights, model_options=dict(options), metadata=metadata)
        except TypeError as error:
            raise Skip("this host does not read sizes from a file's metadata") from error
        return sample(bench, attach(model))

    return run


class Packed(comfy.ops.manual_cast):
    """GGUF-style operations: weights are unpacked when a layer is called, in forward."""

    class Linear(comfy.ops.manual_cast.Linear):
        def forward(self, *args, **kwargs):
            return self.unpacked(*args, **kwargs)

        def unpacked(self, x):
            weight = self.weight.to(torch.float16).to(x.dtype)
            return torch.nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def compiled(bench, attach):
    """torch.compile with a backend that runs the graphs without compiling them."""
    try:
        from comfy_api.torch_helpers import set_torch_compile_wrapper
    except ImportError as error:
        raise Skip("this host has no set_torch_compile_wrapper") from error
    model = attach(bench.model).clone()
    set_torch_compile_wrapper(model, backend="eager")
    return sample(bench, model)


def twice(bench, attach):
    return sample(bench, attach(attach(bench.model)))


def easycache(bench, model):
    return attach_easycache(model, 0.2)


def lazycache(bench, model):
    return attach_lazycache(model, 0.2)


def gpu(run):
    """A cell's run that needs a GPU; `python3 tests/gpu` runs it on one."""

    def guarded(bench, attach):
        if bench.model.load_device.type != "cuda":
            raise Skip("needs a GPU")
        return run(bench, attach)

    return guarded


def on_gpu(bench, attach):
    return sample(bench, attach(bench.model))


def dynamic(bench, attach):
    if not getattr(getattr(comfy, "memory_management", None), "aimdo_enabled", False):
        raise Skip("needs the host's dynamic offload")
    return on_gpu(bench, attach)


def cells():
    def cell(name, run, **more):
        return Cell("Execution", name, run, **more)

    other_cache = {"verdict": COMPUTED, "says": "EasyCache", "bound": 0.0}
    return [
        cell("context windows", windowed),
        cell("MultiGPU CFG Split, two threads", split_guidance),
        cell("low VRAM, weights cast for every call", low_vram),
        cell("fp8 weights", loaded(dtype=torch.float8_e4m3fn)),
        cell("bf16", loaded(dtype=torch.bfloat16)),
        cell("GGUF-style operations", loaded(custom_operations=Packed)),
        cell("torch.compile", compiled),
        cell("LoRA after", after(with_lora)),
        cell("merged after", after(merged)),
        cell("cloned after", after(cloned)),
        cell("ModelSamplingSD3 before", before(shifted)),
        cell("ModelSamplingSD3 after", after(shifted)),
        cell("CFG-Zero after", after(cfg_zero)),
        cell("both nodes twice", twice),
        cell("EasyCache before", before(easycache), **other_cache),
        cell("EasyCache after", after(easycache), **other_cache),
        cell("LazyCache before", before(lazycache), **other_cache),
        cell("LazyCache after", after(lazycache), **other_cache),
        cell("GPU, pinned copies and events", gpu(on_gpu), block_settings={"cache_device": "cpu"}),
        cell("GPU, dynamic offload", gpu(dynamic)),
    ]
