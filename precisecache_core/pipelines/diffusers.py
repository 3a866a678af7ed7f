"""The caches on a pipeline of diffusers (https://github.com/huggingface/diffusers)."""

import functools
import inspect
from types import TracebackType
from typing import Any

import torch

from ..blockcache.config import BlockCacheConfig
from ..lfcache.config import DEFAULT_SHARE, PRESETS, LFCacheConfig
from ..record.report import build_report
from .adapters import adapter_for
from .step_run import StepRun

HOOK = "precisecache"
OFF = "off"
FLASH = "flash"
LIMIT = 64  # runs whose reports are kept; the oldest is dropped first


def apply_precisecache(
    pipe: Any,
    preset: str = "base",
    *,
    alpha: float = LFCacheConfig.alpha,
    share: float = DEFAULT_SHARE,
    blockcache: BlockCacheConfig | None = None,
    **settings: Any,
) -> "AppliedCache":
    """Put the caches on a pipeline until `remove`; the result is a context, too.

        with apply_precisecache(pipe, "turbo") as cache:
            video = pipe(prompt, num_inference_steps=50).frames[0]
        print(cache.report())

    pipe: a pipeline with a `transformer` and a `scheduler`. preset: base, turbo, flash, budget (with `share`), custom
    (with `alpha`), paper, or off, which computes every step and only writes the report. blockcache: settings of
    BlockCache; flash has its own. settings: further settings of LFCacheConfig, for the presets that use them.
    Raises ValueError naming setting, value and remedy, and if diffusers is missing or the pipeline has caches already.
    """
    if not hasattr(pipe, "scheduler") or not adapter_for(pipe).transformers():
        raise ValueError(
            f"PreciseCache: pipe must be a pipeline of diffusers with a transformer and a scheduler, "
            f"got {type(pipe).__name__}."
        )
    if preset not in (OFF, *PRESETS):
        raise ValueError(f"PreciseCache: preset must be one of {', '.join((OFF, *PRESETS))}, got {preset!r}.")
    lfcache = None if preset == OFF else LFCacheConfig.from_preset(preset, alpha, share, **settings)
    if preset == FLASH and blockcache is None:
        blockcache = BlockCacheConfig()
    return AppliedCache(pipe, lfcache, blockcache)


class AppliedCache:
    """The caches on a pipeline.

    Each of the pipeline's transformers has a hook of diffusers, and `scheduler.step` is wrapped, which gets the guided
    prediction. A run begins with the first call of a transformer after `set_timesteps`.
    """

    def __init__(self, pipe: Any, lfcache: LFCacheConfig | None, blockcache: BlockCacheConfig | None) -> None:
        self.pipe = pipe
        self.lfcache = lfcache
        self.blockcache = blockcache
        self._runs: list[dict] = []
        self._run: StepRun | None = None
        self._timesteps: torch.Tensor | None = None  # of the run
        self._is_trying = False
        self._scheduler: Any = None  # whose `step` is wrapped
        self._modules = adapter_for(pipe).transformers()
        self._had = [(module, set(vars(module)) & {"forward", "_diffusers_hook"}) for module in self._modules]
        for module in self._modules:
            _register(module, self)

    def report(self) -> dict:
        """The report of the runs so far (`record/report.schema.json`), also of one that was broken off."""
        entries = [*self._runs, *([self._run.cached.report()] if self._run else [])]
        return build_report(entries)

    def remove(self) -> None:
        """Take the caches off the pipeline, which is then as it was."""
        self._end()
        self._unwrap()
        for module, had in self._had:
            _unregister(module, had)
        self._had = []

    def __enter__(self) -> "AppliedCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def forward(self, module: Any, original: Any, args: tuple, kwargs: dict) -> Any:
        """What a transformer answers. original: its own forward."""
        if self._is_trying:
            return original(*args, **kwargs)
        if args:
            names = list(inspect.signature(type(module).forward).parameters)[1:]
            kwargs = {**dict(zip(names, args)), **kwargs}
        if "hidden_states" not in kwargs:
            return original(**kwargs)
        scheduler = self.pipe.scheduler
        if self._run is None or scheduler.timesteps is not self._timesteps:
            self._begin()
        assert self._run is not None
        return self._run.forward(module, kwargs, lambda: original(**kwargs))

    def end_of_pipeline(self) -> None:
        """The pipeline has ended, as far as diffusers tells."""
        self._end()

    def _begin(self) -> None:
        self._end()
        if self.pipe.scheduler is not self._scheduler:
            self._unwrap()
            self._wrap(self.pipe.scheduler)
        self._timesteps = self.pipe.scheduler.timesteps
        self._run = StepRun(adapter_for(self.pipe), self.lfcache, self.blockcache, self._call)

    def _end(self) -> None:
        run, self._run, self._timesteps = self._run, None, None
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
            if self._run is not None:
                given = {**dict(zip(names[1:], args)), **kwargs}
                model_output = self._run.guided(model_output, given.get("sample"))
            return original(model_output, *args, **kwargs)

        scheduler.step = step
        self._scheduler = scheduler

    def _unwrap(self) -> None:
        if self._scheduler is not None:
            vars(self._scheduler).pop("step", None)
        self._scheduler = None


def _register(module: Any, owner: AppliedCache) -> None:
    """Put our hook on a transformer. Raises ValueError if diffusers is missing or has no such hooks."""
    try:
        from diffusers.hooks import HookRegistry, ModelHook
    except ImportError as error:
        raise ValueError(
            f"PreciseCache: this needs diffusers 0.35 or newer ({error}). Install it: pip install -U diffusers."
        ) from error

    class Hook(ModelHook):
        _is_stateful = True  # so that the pipeline tells its end

        # torch.compile must compile the transformer, but not the decisions
        @torch.compiler.disable(recursive=False)
        def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            return owner.forward(module, self.fn_ref.original_forward, args, kwargs)

        def reset_state(self, module: Any) -> Any:
            owner.end_of_pipeline()
            return module

    registry = HookRegistry.check_if_exists_or_initialize(module)
    if HOOK in registry.hooks:
        raise ValueError("PreciseCache: this pipeline has caches already: call remove() on the earlier result first.")
    registry.register_hook(Hook(), HOOK)


def _unregister(module: Any, had: set[str]) -> None:
    """Take our hook off again. had: which of the attributes that hooks use the module had before."""
    registry = getattr(module, "_diffusers_hook", None)
    if registry is None or HOOK not in registry.hooks:
        return
    registry.remove_hook(HOOK, recurse=False)
    if registry.hooks:
        return
    if "forward" not in had:
        vars(module).pop("forward", None)
    if "_diffusers_hook" not in had:
        del module._diffusers_hook
