"""Raylight's workers with our caches: what a sampler node calls on them, with the caches around it.

Nothing here imports ray: the handles of the workers are given, and `ray.get` is taken when it is needed.
"""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import reports
from .attachment import Attachment, attached
from .prompt import Prompt
from .worker_side import settings_of

# methods of a worker that sample
SAMPLING = ("common_ksampler", "custom_sampler", "custom_sampler_advanced")
PLAN = "precisecache"  # our key in a RAY_ACTORS value
LIMIT = 64  # runs whose reports are waited for; the oldest is dropped first
PATIENCE = 60.0  # seconds for a worker that is asked for a value
PACK = Path(__file__).resolve().parents[2]

INSTALL = (
    "Install Raylight (https://github.com/komikndr/raylight) as a custom node, with its requirements, "
    "and restart ComfyUI."
)

logger = logging.getLogger("precisecache")


class RunPlan:
    """The caches of a RAY_ACTORS value, and the reports of the runs that were sampled with it.

    attachment: an Attachment whose wrappers are not used here; its settings go to the workers.
    layout: Raylight's parallel_dict. actors: the handles of all workers.
    """

    def __init__(self, attachment: Attachment, layout: dict, actors: Sequence[Any] = ()) -> None:
        self.attachment = attachment
        self.layout = layout
        self._actors = actors
        self._runs: Counter[int] = Counter()  # that each worker was told of, by the ids of the handles
        self._waiting: list[tuple[Prompt, Any]] = []  # (prompt of a run, reference to what `end` returns)

    def __reduce__(self) -> tuple:
        # Raylight's guiders hold RAY_ACTORS and are sent to the workers, which cannot import this module
        return type(None), ()

    def sample(self, actor: Any, method: Any, args: tuple, kwargs: dict) -> Any:
        """Call a sampling method of a worker with the caches on its model; returns a reference to the result.

        A worker does what it is told in this order, also after an error, so that no cache outlasts the run.
        """
        self._begin(actor)
        try:
            result = method.remote(*args, **kwargs)
        except Exception:
            # an argument cannot be sent: no other worker will hear of this run, and those that have would wait for it
            self._end(actor)
            for other in self._actors:
                if self._runs[id(other)] < self._runs[id(actor)]:
                    self._begin(other)
                    self._end(other)
            raise
        self._end(actor)
        return result

    def _begin(self, actor: Any) -> None:
        self._runs[id(actor)] += 1
        _tell(actor, "begin", settings_of(self.attachment), self.layout)

    def _end(self, actor: Any) -> None:
        self._waiting.append((Prompt.current(), _tell(actor, "end")))
        del self._waiting[:-LIMIT]

    def collect(self) -> None:
        """Record the reports of the runs so far, those of each group's first worker."""
        ray = import_ray()
        waiting, self._waiting = self._waiting, []
        for prompt, reference in waiting:
            try:
                told = ray.get(reference, timeout=PATIENCE)
            except Exception:  # the worker is gone; the sampler's node has raised its error
                logger.debug("PreciseCache: a worker does not report", exc_info=True)
                continue
            for run in told["runs"] if told["is_first"] else ():
                names = prompt.in_page(self.attachment.nodes.values())
                sampler = "".join(prompt.in_page([prompt.node_id]))
                reports.record(self.attachment.id, {**run, "nodes": names, "sampler": sampler}, prompt)


class _Sampling:
    """A sampling method of a worker's handle, with the caches around it."""

    def __init__(self, actor: Any, method: Any, plan: RunPlan) -> None:
        self._actor = actor
        self._method = method
        self._plan = plan

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """As Ray's."""
        return self._plan.sample(self._actor, self._method, args, kwargs)

    def options(self, **options: Any) -> "_Sampling":
        """As Ray's."""
        return _Sampling(self._actor, self._method.options(**options), self._plan)


def with_caches(ray_actors: Any, node_id: str | None, label: str, companion: Any = None, **configs: Any) -> dict:
    """A copy of a RAY_ACTORS value whose workers sample with the caches; the value itself is not changed.

    The arguments after ray_actors are those of `attach`. Raises ValueError if `ray_actors` is not Raylight's, or if its
    workers share a run in a way that the caches cannot follow.
    """
    ray = import_ray()
    workers = ray_actors.get("workers") if isinstance(ray_actors, dict) else None
    if not workers:
        raise ValueError(
            f"PreciseCache: ray_actors must come from Raylight, got {type(ray_actors).__name__}. "
            "Connect the ray_actors output of Load Diffusion Model (Ray)."
        )
    before = ray_actors.get(PLAN)
    layout = ray.get(workers[0].get_parallel_dict.remote())
    if layout.get("pipefusion_enabled"):
        raise ValueError(
            "PreciseCache: ray_actors uses PipeFusion, which computes blocks of different steps at once, so that "
            "none can be skipped. Remove the PipeFusion node, or this one."
        )
    plan = RunPlan(attached(before and before.attachment, node_id, companion, label, **configs), layout, workers)
    return {**ray_actors, "workers": [_with_caches(actor, plan) for actor in workers], PLAN: plan}


def plan_of(ray_actors: Any) -> RunPlan | None:
    """The RunPlan of a RAY_ACTORS value, or None."""
    return ray_actors.get(PLAN) if isinstance(ray_actors, dict) else None


def import_ray() -> Any:
    """The package ray. Raises ValueError that says what to install."""
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            f"PreciseCache: this node needs Raylight, and ray cannot be imported ({error}). {INSTALL}"
        ) from error
    return ray


def _with_caches(actor: Any, plan: RunPlan) -> Any:
    """A second handle of a worker, whose sampling methods go through the plan; a handle of ours stays unused."""
    twin = copy.copy(actor)  # pickles and unpickles it, so that it has nothing of ours yet
    for name in SAMPLING:
        if (method := getattr(twin, name, None)) is not None:
            setattr(twin, name, _Sampling(actor, method, plan))
    return twin


def _tell(actor: Any, name: str, *arguments: Any) -> Any:
    """Let a worker call a function of `worker_side` with its model; returns a reference to the result."""
    return actor.model_function_runner_get_values.remote(_in_worker(), str(PACK), name, *arguments)


def _in_worker() -> Callable:
    """What a worker calls. It is nested so that Ray sends its code: the worker cannot import this module by name."""

    def call(model: Any, folder: str, name: str, *arguments: Any) -> Any:
        import importlib
        import sys
        import types

        pack = "precisecache_in_worker"
        if pack not in sys.modules:
            sys.modules[pack] = types.ModuleType(pack)
            sys.modules[pack].__path__ = [folder]  # its own __init__ would register nodes
        return getattr(importlib.import_module(f"{pack}.nodes.host.worker_side"), name)(model, *arguments)

    return call
