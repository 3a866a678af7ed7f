"""Raylight's own nodes in this process and its own actors in CPU processes, for tests of several GPUs without one.

`why_missing` in `testkit.raylight_on_cpu` says whether this can run. Only one bench can be open at a time, because
RayInitializer ends the Ray session that it finds.
"""

import contextlib
import functools
from unittest import mock

import torch

from testkit.ray_session import Topology, children, end_processes, ray_environment
from testkit.raylight_on_cpu import enter_raylight, pretend_gpus


class RayBench:
    """Context manager: the actors of one topology. They serve any number of models one after another.

    seconds: the longest wait for one call of the actors; longer raises ray.exceptions.GetTimeoutError.
    collective_seconds: the longest wait of a rank for the others, after which it raises RuntimeError.
    """

    def __init__(self, gpus=2, ulysses=1, ring=1, cfg=1, dp=1, fsdp=False, seconds=120, collective_seconds=20):
        self.topology = Topology(gpus, ulysses, ring, cfg, dp, fsdp)
        self.seconds = seconds
        self.collective_seconds = collective_seconds

    def __enter__(self):
        self._undo = contextlib.ExitStack()
        try:
            self._start()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, *_):
        self._undo.close()

    def _start(self):
        enter_raylight()
        import ray
        import raylight.comfy_extra_dist.nodes_custom_sampler as custom
        import raylight.comfy_extra_dist.nodes_model_advanced as advanced
        import raylight.nodes as nodes

        if ray.is_initialized():
            raise RuntimeError("Ray is running already: close the other bench first.")
        self.nodes = {**nodes.NODE_CLASS_MAPPINGS, **custom.NODE_CLASS_MAPPINGS, **advanced.NODE_CLASS_MAPPINGS}
        self.folder = self._undo.enter_context(ray_environment(self.topology.dp, self.collective_seconds))
        self._undo.callback(self._end, set(children()))
        self.initialize()

    @staticmethod
    def _end(others):
        """Shut Ray down. others: processes that are not Ray's."""
        import ray

        started = [process for process in children() if process not in others]
        ray.shutdown()
        end_processes(started)

    def initialize(self):
        """Run RayInitializer: new actors, also where others are running or dead."""
        with pretend_gpus(self.topology.gpus):
            (self.actors_init,) = self.run("RayInitializer", **self.topology.inputs())

    @property
    def workers(self):
        """The actors' handles, rank by rank."""
        return self.actors_init[0]["workers"]

    def run(self, node, **inputs):
        """What a node returns. node: the name of one of Raylight's, or a node class, Raylight's or the host's V3."""
        cls = self.nodes[node] if isinstance(node, str) else node
        with self.bounded():
            if hasattr(cls, "execute"):
                return cls.execute(**inputs).args
            return getattr(cls(), cls.FUNCTION)(**inputs)

    @contextlib.contextmanager
    def bounded(self):
        """Every `ray.get` in it waits at most `seconds`."""
        import ray

        get = ray.get

        @functools.wraps(get)
        def bounded_get(refs, *, timeout=None, **kwargs):
            return get(refs, timeout=self.seconds if timeout is None else timeout, **kwargs)

        with mock.patch.object(ray, "get", bounded_get):
            yield

    def load(self, model, shift=None, fresh=True):
        """RAY_ACTORS with the model of a ModelFile, from RayUNETLoader.

        shift: set as by RayModelSamplingSD3. fresh: without the patches that Raylight leaves on a model that it
            finds loaded.
        """
        if fresh:
            self.on_every_worker(lambda worker: setattr(worker, "active_request_key", None))
        inputs = dict(ray_actors_init=self.actors_init, unet_name=model.file, weight_dtype="default")
        (actors,) = self.run("RayUNETLoader", **inputs)
        if shift is not None:
            (actors,) = self.run("RayModelSamplingSD3", ray_actors=actors, shift=shift)
        return actors

    def sample(
        self, actors, model, seed=0, steps=8, cfg=4.0, sampler="euler", scheduler="simple", latent=None, shape=None
    ):
        """The latent from XFuserKSamplerAdvanced.

        latent: to start from; by default zeros, in this shape or in that of the model.
        """
        latent, _ = self.run(
            "XFuserKSamplerAdvanced",
            ray_actors=actors,
            add_noise="enable",
            noise_seed=seed,
            steps=steps,
            cfg=cfg,
            sampler_name=sampler,
            scheduler=scheduler,
            positive=model.positive,
            negative=model.negative,
            latent_image={"samples": torch.zeros(shape or model.latent) if latent is None else latent},
            start_at_step=0,
            end_at_step=10000,
            return_with_leftover_noise="disable",
        )
        return latent["samples"]

    def sample_custom(self, actors, model, seed=0, steps=8, cfg=4.0, sampler="euler", scheduler="simple", latent=None):
        """The latent from XFuserSamplerCustomAdvanced with Raylight's CFG guider and scheduler."""
        import comfy.samplers

        (sigmas,) = self.run("RayBasicScheduler", ray_actors=actors, scheduler=scheduler, steps=steps, denoise=1.0)
        (guider,) = self.run(
            "RayCFGGuider", ray_actors=actors, positive=model.positive, negative=model.negative, cfg=cfg
        )
        output, _, _ = self.run(
            "XFuserSamplerCustomAdvanced",
            add_noise=True,
            noise_seed=seed,
            guider=guider,
            sampler=comfy.samplers.sampler_object(sampler),
            sigmas=sigmas,
            latent_image={"samples": torch.zeros(model.latent) if latent is None else latent},
        )
        return output["samples"]

    def on_every_model(self, function, *args):
        """[function(patcher, *args)] of all ranks. A function of a test module must be nested, to go by value."""
        import ray

        with self.bounded():
            return ray.get([a.model_function_runner_get_values.remote(function, *args) for a in self.workers])

    def on_every_worker(self, function, *args):
        """[function(worker, *args)] of all ranks; worker: Raylight's RayWorker."""
        import ray

        with self.bounded():
            return ray.get([a.__ray_call__.remote(function, *args) for a in self.workers])

    def pids(self):
        """Process ids, rank by rank."""
        return self.on_every_worker(lambda _: __import__("os").getpid())

    def worker_log(self, lines=40):
        """The last lines of what each worker wrote."""
        files = sorted(self.folder.glob("ray/session_latest/logs/worker-*.*"))
        texts = ((file.name, file.read_text("utf-8", errors="replace").splitlines()[-lines:]) for file in files)
        return "\n".join(f"--- {name}\n" + "\n".join(text) for name, text in texts if text)
