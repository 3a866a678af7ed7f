"""Lets the unmodified Raylight run on CPU processes with gloo: what has to be replaced in torch and in yunchang.

Standard library only at import. The workers load this file by its path, so that nothing else of this repository can
be imported there, as on a user's machine.
"""

import contextlib
import functools
import importlib.util
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from unittest import mock

SIZES = "testkit_sizes"  # a key of a model file's metadata, see `detect_by_metadata`
SECONDS = "TESTKIT_COLLECTIVE_SECONDS"  # environment: how long a rank waits for the others in a collective


def worker_hook(file=__file__):
    """A function for Ray's `worker_process_setup_hook`, sent by value."""

    def hook(file=str(file)):
        import importlib.util as util

        spec = util.spec_from_file_location("raylight_on_cpu", file)
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.set_up_worker()

    return hook


def set_up_worker():
    """Everything that a worker needs, before it imports Raylight; stays for the life of its process."""
    import comfy.cli_args
    import torch

    torch.set_num_threads(1)
    comfy.cli_args.args.cpu = True
    torch.cuda.get_device_capability = lambda *_: (0, 0)
    torch.cuda.synchronize = lambda *_: None
    torch.version.cuda = None  # Raylight's stand-in for xfuser.envs then names the CPU and gloo
    _use_gloo()
    with import_as_on_a_gpu():
        import raylight  # noqa: F401
    _attend_on_cpu()
    detect_by_metadata(setattr)


@contextlib.contextmanager
def import_as_on_a_gpu():
    """While xfuser and yunchang are imported: they choose their classes by what `torch.cuda` says then."""
    import torch

    with (
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(torch.cuda, "get_device_capability", lambda *_: (0, 0)),
    ):
        yield


def _use_gloo():
    """Process groups and device meshes on the CPU, with a time-out that a test can wait for."""
    import torch.distributed as dist
    import torch.distributed.device_mesh as device_mesh

    limit = timedelta(seconds=float(os.environ.get(SECONDS, 60)))
    init_group, new_group, init_mesh = dist.init_process_group, dist.new_group, device_mesh.init_device_mesh

    @functools.wraps(init_group)
    def init_gloo(backend=None, *args, **kwargs):
        # the time-out given here is also the one for the other ranks' start
        init_group("gloo", *args, **{**kwargs, "timeout": timedelta(minutes=3)})
        dist.distributed_c10d._set_pg_timeout(limit)

    @functools.wraps(new_group)
    def new_gloo(*args, **kwargs):  # without a time-out of its own a group waits 30 minutes
        return new_group(*args, **{**kwargs, "timeout": limit})

    @functools.wraps(init_mesh)
    def init_cpu_mesh(device_type, *args, **kwargs):
        return init_mesh("cpu", *args, **kwargs)

    dist.init_process_group, dist.new_group = init_gloo, new_gloo
    device_mesh.init_device_mesh = dist.init_device_mesh = init_cpu_mesh


def _attend_on_cpu():
    """yunchang's attention with a log-sum-exp, which the ring needs, by torch's kernel for the CPU."""
    import torch
    import yunchang.kernels.attention as attention

    def attend(q, k, v, dropout_p=0.0, is_causal=False, scale=None):
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(q, k, v, dropout_p, is_causal, scale=scale)

    attention._scaled_dot_product_flash_attention = attend


def detect_by_metadata(replace):
    """Let a model file's metadata tell the sizes that the host's detection assumes instead of reading them.

    replace(object, name, value): `setattr`, or what undoes it later.
    """
    import comfy.model_detection

    original = comfy.model_detection.detect_unet_config

    @functools.wraps(original)
    def detect(state_dict, key_prefix, metadata=None):
        found = original(state_dict, key_prefix, metadata=metadata)
        return {**found, **json.loads((metadata or {}).get(SIZES, "{}"))}

    replace(comfy.model_detection, "detect_unet_config", detect)


@contextlib.contextmanager
def detecting_by_metadata():
    """`detect_by_metadata` for a while, in the process of the tests."""
    with contextlib.ExitStack() as stack:
        detect_by_metadata(lambda *args: stack.enter_context(mock.patch.object(*args)))
        yield


@contextlib.contextmanager
def pretend_gpus(count):
    """While RayInitializer runs in the driver: `count` GPUs, given out by Ray to processes on the CPU.

    As many CPUs are named, because that is how many processes Ray starts at a time.
    """
    import ray
    import torch

    start = ray.init

    @functools.wraps(start)
    def init(*args, runtime_env=None, **kwargs):
        runtime_env = {**(runtime_env or {}), "worker_process_setup_hook": worker_hook()}
        quiet = {"log_to_driver": False, "logging_level": "error", "num_cpus": count, "num_gpus": count}
        quiet["object_store_memory"] = 100 * 1024**2
        return start(*args, runtime_env=runtime_env, **{**kwargs, **quiet})

    with mock.patch.object(ray, "init", init), mock.patch.object(torch.cuda, "device_count", lambda: count):
        yield


def raylight_folder():
    """The checkout that RAYLIGHT_PATH names."""
    return Path(os.environ["RAYLIGHT_PATH"]).expanduser().resolve()


def why_missing():
    """One sentence that says why Raylight cannot be run here, or None."""
    if not os.environ.get("RAYLIGHT_PATH"):
        return "RAYLIGHT_PATH is not set to a checkout of Raylight (github.com/komikndr/raylight)."
    if not (raylight_folder() / "src" / "raylight" / "nodes.py").is_file():
        return f"RAYLIGHT_PATH is {raylight_folder()}, where there is no src/raylight/nodes.py."
    for module in ("ray", "xfuser", "yunchang"):
        if importlib.util.find_spec(module) is None:
            return f"The Python package {module}, which Raylight needs, is not installed."
    return None


def enter_raylight():
    """Make Raylight importable and import it. The host must be importable already; Raylight must not be missing."""
    source = str(raylight_folder() / "src")
    if source not in sys.path:
        sys.path.append(source)
    with import_as_on_a_gpu():
        import raylight.nodes  # noqa: F401
