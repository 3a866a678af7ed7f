"""The caches on a pipeline of diffusers (https://github.com/huggingface/diffusers)."""

import functools
import inspect
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from ..blockcache.config import BlockCacheConfig
from ..lfcache.config import LFCacheConfig
from ..record.report import build_report
from .adapters import adapter_for
from .hooked import HookedModule, is_compiled, unwrapped
from .presets import configs_of
from .step_run import StepRun

LIMIT = 64  # runs whose reports are kept; the oldest is dropped first


def apply_precisecache(
    pipe: Any,
    preset: str = "base",
    *,
    alpha: float | None = None,
    share: float | None = None,
    blockcache: BlockCacheConfig | None = None,
    **settings: Any,
) -> "AppliedCache":
    """Put the caches on a pipeline until `remove`; the result is a context, too.

        with apply_precisecache(pipe, "turbo") as cache:
            video = pipe(prompt, num_inference_steps=50).frames[0]
        print(cache.report())

    pipe: a pipeline with a `transformer` and a `scheduler`. preset: base, turbo, flash, budget (with `share`), custom
    (with `alpha`), paper, or off, which computes every step and only writes the report. blockcache: settings of
    BlockCache; flash has its own. settings: further fields of LFCacheConfig, for the presets that use them.
    Raises ValueError naming setting, value and remedy, and if diffusers is missing or the pipeline has caches already.
    """
    if not hasattr(pipe, "scheduler") or not adapter_for(pipe).transformers():
        raise ValueError(
            f"PreciseCache: pipe must be a pipeline of diffusers with a transformer and a scheduler, "
            f"got {type(pipe).__name__}."
        )
    return AppliedCache(pipe, *configs_of(preset, alpha, share, blockcache, settings))


class AppliedCache:
    """The caches on a pipeline.

    Each of the pipeline's transformers is hooked (see `HookedModule`), and `scheduler.step` is wrapped, which gets the
    guided prediction. A run begins with the first call of a transformer after `set_timesteps` and ends with the
    scheduler's last step, or with the pipeline.
    """

    def __init__(self, pipe: Any, lfcache: LFCacheConfig | None, blockcache: BlockCacheConfig | None) -> None:
        self.pipe = pipe
        self.lfcache = lfcache
        self.blockcache = blockcache
        self._runs: list[dict] = []
        self._run: StepRun | None = None
        self._timesteps: Callable[[], torch.Tensor | None] = lambda: None  # of the run, or of the last one
        self._is_trying = False
        self._scheduler: Any = None  # whose `step` is wrapped
        self._hooked: list[HookedModule] = []
        try:
            for module in adapter_for(pipe).transformers():
                self._hooked.append(HookedModule(module, self._forward, self._end))
        except ValueError:
            self.remove()
            raise

    def report(self) -> dict:
        """The report of the runs so far (`record/report.schema.json`), also of one that was broken off."""
        entries = [*self._runs, *([self._run.cached.report()] if self._run else [])]
        return build_report(entries)

    def remove(self) -> None:
        """Take the caches off the pipeline, which is then as it was. The report stays."""
        self._end()
        self._unwrap()
        for hooked in self._hooked:
            hooked.remove()
        self._hooked = []

    def __enter__(self) -> "AppliedCache":
        if not self._hooked:
            raise ValueError("PreciseCache: these caches were removed: call apply_precisecache again.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _forward(self, module: Any, original: Callable, args: tuple, kwargs: dict) -> Any:
        """What a transformer answers. original: calls it without us."""
        if self._is_trying:
            return original(*args, **kwargs)
        names = list(inspect.signature(type(unwrapped(module)).forward).parameters)[1:]
        kwargs = {**dict(zip(names, args)), **kwargs}
        timesteps = self.pipe.scheduler.timesteps
        if timesteps is not self._timesteps():
            self._begin(kwargs, timesteps)
        run, hidden = self._run, kwargs.get(names[0])
        if run is None or not isinstance(hidden, torch.Tensor):
            return original(**kwargs)
        try:
            return run.forward(module, hidden, kwargs, lambda: original(**kwargs))
        except BaseException:
            self._end()
            raise

    def _begin(self, kwargs: dict, timesteps: torch.Tensor) -> None:
        self._end()
        if self.pipe.scheduler is not self._scheduler:
            self._unwrap()
            self._wrap(self.pipe.scheduler)
        self._timesteps = weakref.ref(timesteps)
        adapter = adapter_for(self.pipe)
        self._run = StepRun(adapter, self.lfcache, self.blockcache, self._call, kwargs)
        outside = [hooked.module for hooked in self._hooked if hooked.is_outside_of_compiled_code]
        if any(is_compiled(module) and module not in outside for module in adapter.transformers()):
            self._run.cached.journal.warn(
                "the transformer was compiled after the caches were applied, so it runs uncompiled: compile it first"
            )

    def _end(self) -> None:
        run, self._run = self._run, None
        if run is not None and (entry := run.close()):
            self._runs.append(entry)
            del self._runs[:-LIMIT]

    def _call(self, module: Any, kwargs: dict) -> torch.Tensor:
        """Call a transformer with everything that others have put on it, but without the caches."""
        self._is_trying = True
        try:
            result = module(**kwargs)
        finally:
            self._is_trying = False
        return result[0] if isinstance(result, tuple) else result.sample

    def _wrap(self, scheduler: Any) -> None:
        original = scheduler.step
        names = list(inspect.signature(original).parameters)

        @functools.wraps(original)
        def step(model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            run = self._run
            if run is not None:
                given = {**dict(zip(names[1:], args)), **kwargs}
                model_output = run.guided(model_output, given.get("sample"))
            result = original(model_output, *args, **kwargs)
            if run is not None and run.is_over:
                self._end()
            return result

        scheduler.step = step
        self._scheduler = scheduler

    def _unwrap(self) -> None:
        if self._scheduler is not None:
            vars(self._scheduler).pop("step", None)
        self._scheduler = None
