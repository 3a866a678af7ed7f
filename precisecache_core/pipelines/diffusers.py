"""The caches on a pipeline of diffusers (https://github.com/huggingface/diffusers)."""

import functools
import inspect
import logging
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from ..blockcache.config import BlockCacheConfig
from ..lfcache.config import LFCacheConfig
from ..record.report import build_report
from .adapters import adapter_for
from .branches import outputs_of
from .hooked import HookedModule, is_compiled, unwrapped
from .precision import Precision
from .presets import configs_of
from .step_run import StepRun
from .wrapped_step import WrappedStep

logger = logging.getLogger("precisecache")

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
    scheduler's last step, or with the pipeline. What fails in the caches ends the run; its further steps are computed.
    """

    def __init__(self, pipe: Any, lfcache: LFCacheConfig | None, blockcache: BlockCacheConfig | None) -> None:
        self.pipe = pipe
        self.lfcache = lfcache
        self.blockcache = blockcache
        self._runs: list[dict] = []
        self._run: StepRun | None = None
        self._timesteps: Callable[[], torch.Tensor | None] = lambda: None  # of the run, or of the last one
        self._precision: Precision | None = None  # of the caller of the transformer
        self._is_trying = False
        self._hooked: list[HookedModule] = []
        self._step: WrappedStep | None = None
        try:
            for module in adapter_for(pipe).transformers():
                self._hooked.append(HookedModule(module, self._forward, self._end))
            self._wrap_step()
        except BaseException:
            self.remove()
            raise

    def report(self) -> dict:
        """The report of the runs so far (`record/report.schema.json`), also of one that was broken off."""
        entries = [*self._runs, *([self._run.cached.report()] if self._run else [])]
        return build_report(entries)

    def remove(self) -> None:
        """Take the caches off the pipeline, which is then as it was. The report stays."""
        self._end()
        if self._step is not None:
            self._step.remove()
        for hooked in self._hooked:
            hooked.remove()
        self._hooked, self.pipe = [], None

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
        names = input_names(type(unwrapped(module)).forward)
        given = {**dict(zip(names, args)), **kwargs}
        hidden = given.get(names[0]) if names and len(args) <= len(names) else None
        timesteps = getattr(self.pipe.scheduler, "timesteps", None)
        if not isinstance(timesteps, torch.Tensor):  # it has not been told the number of steps
            return original(*args, **kwargs)
        self._precision = Precision(hidden.device) if isinstance(hidden, torch.Tensor) else None
        if timesteps is not self._timesteps():
            self._end()
            self._timesteps = weakref.ref(timesteps)
            if isinstance(hidden, torch.Tensor):
                self._ours(hidden.device, self._begin, hidden, given)
            else:
                logger.warning("PreciseCache: %s takes no single latent: computing every call", type(module).__name__)
        if self._run is None or not isinstance(hidden, torch.Tensor):
            return original(*args, **kwargs)
        try:
            answer = self._ours(hidden.device, self._answer, hidden, given)
            if answer is not None or self._run is None:
                return original(*args, **kwargs) if answer is None else answer
            result = self._run.computed(module, lambda: original(*args, **kwargs))
            self._ours(hidden.device, self._run.take, module, result, hidden, given)
            return result
        except BaseException:
            self._end()
            raise

    def _ours(self, device: torch.device, function: Callable, *args: Any) -> Any:
        """What a function of the run returns; None if it fails, which ends the run: its further steps are computed."""
        try:
            with Precision(device).ours():
                return function(*args)
        except Exception as error:
            logger.debug("PreciseCache: the caches failed", exc_info=True)
            reason = f"the caches failed with {type(error).__name__}: {error}: computing every further step"
            if self._run is None:
                logger.warning("PreciseCache: %s", reason)
            else:
                self._run.cached.journal.warn(reason)
            self._end()
            return None

    def _begin(self, hidden: torch.Tensor, kwargs: dict) -> None:
        adapter = adapter_for(self.pipe)
        self._run = StepRun(adapter, self.lfcache, self.blockcache, self._call, hidden, kwargs)
        self._wrap_step()
        outside = [hooked.module for hooked in self._hooked if hooked.is_outside_of_compiled_code]
        if any(is_compiled(module) and module not in outside for module in adapter.transformers()):
            self._run.cached.journal.warn(
                "the transformer was compiled after the caches were applied, so it runs uncompiled: compile it first"
            )

    def _wrap_step(self) -> None:
        """Wrap the step of the pipeline's present scheduler."""
        if self._step is not None and self._step.scheduler is self.pipe.scheduler:
            return
        if self._step is not None:
            self._step.remove()
        self._step = WrappedStep(self.pipe.scheduler, self._guided, self._after)

    def _answer(self, hidden: torch.Tensor, kwargs: dict) -> Any:
        """The answer of the run, None if the call is to be computed."""
        if self._run is None:
            return None
        if self._run.is_foreign(kwargs):
            self._run.cached.journal.warn("a call was not of this run, which was broken off: it ends here")
            self._end()
            return None
        return self._run.answer(hidden, kwargs)

    def _end(self) -> None:
        run, self._run = self._run, None
        try:
            entry = run.close() if run is not None else None
        except Exception as error:
            logger.debug("PreciseCache: a run did not end well", exc_info=True)
            logger.warning("PreciseCache: a run has no report: %s: %s", type(error).__name__, error)
            return
        if entry is not None:
            self._runs.append(entry)
            del self._runs[:-LIMIT]

    def _call(self, module: Any, kwargs: dict) -> torch.Tensor:
        """Call a transformer with everything that others have put on it, but without the caches."""
        assert self._precision is not None, "only the run calls it"
        self._is_trying = True
        try:
            with self._precision.callers():
                return outputs_of(module(**kwargs))[0]
        finally:
            self._is_trying = False

    def _guided(self, model_output: torch.Tensor, sample: Any) -> torch.Tensor:
        """What the scheduler gets in place of the guided prediction."""
        if self._run is None:
            return model_output
        found = self._ours(model_output.device, self._run.guided, model_output, sample)
        return model_output if found is None else found

    def _after(self) -> None:
        if self._run is not None and self._run.is_over:
            self._end()


@functools.cache
def input_names(forward: Callable) -> list[str]:
    """The names of the inputs of a class's forward that may be given by their place, in this order."""
    given = list(inspect.signature(forward).parameters.values())[1:]
    return [parameter.name for parameter in given if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
