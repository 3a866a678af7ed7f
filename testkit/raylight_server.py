"""The real ComfyUI server with this pack and Raylight, whose actors run in CPU processes."""

import shutil
import sys

from testkit import raylight_on_cpu
from testkit.ray_session import Topology, children, end_processes, ray_environment
from tools.comfyui.server import ROOT, ComfyServer

PACK = "raylight_on_cpu"
_PACK_CODE = '''"""Raylight, with as many GPUs as the tests ask for, all of them processes on the CPU."""
import importlib.util
import sys


def load(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


on_cpu = load("raylight_on_cpu", {shim!r})
gpus = on_cpu.pretend_gpus({gpus!r})  # a name of its own keeps it open
gpus.__enter__()
on_cpu.enter_raylight()
pack = load("raylight_pack", {raylight!r})
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = pack.NODE_CLASS_MAPPINGS, pack.NODE_DISPLAY_NAME_MAPPINGS
'''


class RaylightServer(ComfyServer):
    """Context manager: as ComfyServer, with Raylight beside this pack. Like a user's it keeps nodes' results.

    gpus: how many there seem to be. models: paths of model files for RayUNETLoader. arguments: as ComfyServer's.
    """

    def __init__(self, host, log, models=(), gpus=2, collective_seconds=20, arguments=()):
        super().__init__(host, log, cached_nodes=100, arguments=arguments)
        self.models, self.gpus, self.collective_seconds = models, gpus, collective_seconds

    def __enter__(self):
        self._environment = ray_environment(collective_seconds=self.collective_seconds)
        self.ray_folder = self._environment.__enter__()
        try:
            return super().__enter__()
        except BaseException:
            self._environment.__exit__(*sys.exc_info())
            raise

    def __exit__(self, *_):
        started = [] if self.has_ended else children(self.process.pid)
        try:
            super().__exit__()
        finally:
            end_processes(started)
            self._environment.__exit__(None, None, None)

    def _folders(self, base):
        arguments = super()._folders(base)
        folder = base / "models" / "diffusion_models"
        folder.mkdir()
        for path in self.models:
            shutil.copy(path, folder)
        pack = base / "custom_nodes" / PACK
        pack.mkdir()
        raylight = str(raylight_on_cpu.raylight_folder() / "__init__.py")
        code = _PACK_CODE.format(shim=raylight_on_cpu.__file__, gpus=self.gpus, raylight=raylight)
        (pack / "__init__.py").write_text(code, encoding="utf-8")
        arguments.insert(arguments.index(ROOT.name), PACK)
        return arguments


def tiny_graph(file, topology=None, steps=8, seed=0, cfg=4.0):
    """An API graph that samples the tiny model of `file` in node "sample" and saves its frames in node "save"."""
    topology = topology or Topology(ulysses=2)
    return {
        "tiny": node("PreciseCacheTinyModel", subject="triangle", color="orange", motion="right"),
        "init": node("RayInitializer", **topology.inputs()),
        "load": node("RayUNETLoader", ray_actors_init=["init", 0], unet_name=file, weight_dtype="default"),
        "latent": node("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1),
        "sample": node(
            "XFuserKSamplerAdvanced",
            ray_actors=["load", 0],
            add_noise="enable",
            noise_seed=seed,
            steps=steps,
            cfg=cfg,
            sampler_name="euler",
            scheduler="simple",
            positive=["tiny", 1],
            negative=["tiny", 2],
            latent_image=["latent", 0],
            start_at_step=0,
            end_at_step=10000,
            return_with_leftover_noise="disable",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["tiny", 3]),
        "save": node(
            "SaveAnimatedWEBP",
            images=["decode", 0],
            filename_prefix="ray",
            fps=8.0,
            lossless=True,
            quality=80,
            method="default",
        ),
    }


def cached_graph(file, **how):
    """`tiny_graph` with LFCache and BlockCache before its sampler and their report in node "stats"."""
    graph = tiny_graph(file, **how)
    lfcache = dict(preset="custom", alpha=0.7, share=0.4)
    blockcache = dict(mode="on", cache_rate=0.4, reuse_steps=2)
    graph["lfcache"] = node("PreciseCacheLFCacheRay", ray_actors=["load", 0], **lfcache)
    graph["blockcache"] = node("PreciseCacheBlockCacheRay", ray_actors=["lfcache", 0], **blockcache)
    graph["sample"]["inputs"]["ray_actors"] = ["blockcache", 0]
    graph["stats"] = node("PreciseCacheStatsRay", ray_actors=["sample", 1], samples=["sample", 0])
    return graph


def node(kind, **inputs):
    """A node of an API graph."""
    return {"class_type": kind, "inputs": inputs}
