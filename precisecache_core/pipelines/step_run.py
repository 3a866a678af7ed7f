"""One run of a pipeline that calls the model once for each guidance branch, and mixes the branches itself."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from ..blockcache.config import BlockCacheConfig
from ..blockcache.run import EVERYWHERE
from ..blockcache.swap import swapped_forwards
from ..cached_run import CachedRun
from ..lfcache.call import Call
from ..lfcache.config import LFCacheConfig
from ..lfcache.latent.trial import Trial
from ..lfcache.window import WHOLE_SCHEDULE
from ..sampling import percent_window, start_sigma
from .adapters import Adapter
from .guidance import Guidance
from .hooked import is_compiled

logger = logging.getLogger("precisecache")


class StepRun:
    """The caches of one run.

    The pipeline calls `forward` for each branch of a step and then `guided`. The first branch of a step decides for all
    of them. A step that is reused gives every branch the same prediction, and `guided` gives it to the scheduler.
    The first step is always computed: only after it are the branches known, and what weights they have in the guided
    prediction, which a trial needs.

    adapter: the pipeline's. call(module, kwargs): calls the transformer past our hook; returns its only output.
    kwargs: of the run's first call of the transformer. Reads the device, once for the run.
    """

    def __init__(
        self,
        adapter: Adapter,
        lfcache: LFCacheConfig | None,
        blockcache: BlockCacheConfig | None,
        call: Callable[[Any, dict], torch.Tensor],
        kwargs: dict,
    ) -> None:
        self.adapter = adapter
        self.call_model = call
        step = adapter.schedule.step()
        # pipelines that start from a video leave out steps
        self.first = adapter.schedule.step_at(kwargs.get("timestep")) if step is None else step
        self.levels = adapter.schedule.levels()[self.first :]
        parametrization = adapter.schedule.parametrization(adapter.patch)
        self.affine = parametrization.affine
        sigmas = torch.tensor(self.levels)
        self.cached = CachedRun(
            lfcache,
            blockcache,
            parametrization,
            len(self.levels) - 1,
            device=next(value for value in kwargs.values() if isinstance(value, torch.Tensor)).device,
            sigma_window=percent_window(lfcache, sigmas) if lfcache else WHOLE_SCHEDULE,
            block_start_sigma=start_sigma(blockcache, sigmas) if blockcache else EVERYWHERE,
            name=adapter.model_name,
            boundaries=adapter.boundaries,
            schedule=self.levels,
        )
        self._span = ExitStack()  # times the run
        self._span.enter_context(self.cached.sampling())
        self._number = 0  # of this step
        self._batch: int | None = None  # of the latent
        self._call: Call | None = None
        self._answer: torch.Tensor | None = None  # the prediction of a reused step, float32
        self._calls: list[tuple[dict, torch.Tensor]] = []  # of the transformer in this step: arguments, output
        self._passes = 0  # calls of the transformer in this step
        self._guidance = Guidance()
        self._output: Callable[[torch.Tensor], Any] = lambda tensor: (tensor,)  # makes what the transformer returns
        self._look_for_obstacles()

    @property
    def is_over(self) -> bool:
        """Whether the scheduler has made its last step, as far as `guided` has seen."""
        return self._call is None and self._number >= len(self.levels) - 1

    def forward(self, module: Any, hidden: torch.Tensor, kwargs: dict, compute: Callable[[], Any]) -> Any:
        """What the transformer answers to one branch.

        hidden: its first input. kwargs: all of them. compute(): calls it.
        """
        if self._call is None:
            self._begin(hidden)
        if self._answer is not None:
            answer = self.adapter.turned(self._answer).to(hidden.dtype)
            return self._output(torch.cat([answer] * (len(hidden) // len(answer))))
        result = self._computed(module, compute)
        self._passes += 1
        if not self.cached.lfcache.is_standing_aside:
            self._take(result, hidden, kwargs)
        return result

    def guided(self, prediction: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        """What the scheduler gets in place of the guided prediction of this step.

        x: the scheduler's own latent, which is more exact than what the model got; None if it is not known.
        """
        call, answer, self._call, self._answer = self._call, self._answer, None, None
        calls, self._calls, self._passes = self._calls, [], 0
        if call is None:
            return prediction
        self._number += 1
        if not self.cached.journal.calls:
            self.cached.latent_shape = list(self.adapter.turned(prediction).shape)
        if answer is not None:
            return self.adapter.turned(answer)[: len(prediction)].to(prediction.dtype)
        new = self._widened(self.adapter.turned(prediction), call.x)
        if not self.cached.lfcache.is_standing_aside and new is None:
            self.cached.lfcache.stand_aside("the guided prediction has another shape than the latent")
        if self.cached.lfcache.is_standing_aside or new is None:
            self._try(call, give_up=True)
            call.finish(call.x)
            return prediction
        branches = [part for _, output in calls for part in self._parts(output, len(prediction))]
        self._guidance.fit([kwargs for kwargs, _ in calls], branches, prediction)
        if call.trial is not None:  # the first step: its trials had to wait for the branches
            call.note_computed()
            self._try(call)
        if x is not None and not self.adapter.schedule.is_scaled:
            x = self._widened(self.adapter.turned(x), call.x)
            call.x = call.x if x is None else x.float()
        a, b = self.affine(call.sigma)
        denoised = a * call.x + b * new.float()
        finished = call.finish(denoised)
        if finished is denoised:
            return prediction
        return self.adapter.turned((finished - a * call.x) / b)[: len(prediction)].to(prediction.dtype)

    def close(self) -> dict | None:
        """The run is over: drop every tensor. Returns its report entry; None if nothing was sampled."""
        self._span.close()
        self.cached.end()
        entry = self.cached.report() if self.cached.journal.calls else None
        self.cached.release()
        self._call = self._answer = None
        self._calls, self._guidance = [], Guidance()
        return entry

    def _look_for_obstacles(self) -> None:
        adapter, run = self.adapter, self.cached
        for cache in (run.lfcache, run.blockcache):
            if cache is None or cache.is_standing_aside:
                continue
            if any(getattr(module, "is_cache_enabled", False) for module in adapter.transformers()):
                cache.stand_aside("a cache of diffusers is on (enable_cache)")
        if not run.lfcache.is_standing_aside and (reason := adapter.schedule.obstacle()):
            run.lfcache.stand_aside(reason)
        if not run.lfcache.is_standing_aside and (reason := adapter.obstacle()):
            run.lfcache.do_without_trials(reason)

    def _begin(self, hidden: torch.Tensor) -> None:
        lfcache = self.cached.lfcache
        latent = self.adapter.latent(hidden)
        if self._batch is None:
            self._batch = len(latent) // self.adapter.branches
        x = latent[: self._batch].float()
        if not lfcache.is_standing_aside and not self._guidance.is_sum():
            lfcache.stand_aside("the guidance is not a sum of its branches with weights that add up to one")
        step = self.adapter.schedule.step()
        self._number = self._number if step is None else step - self.first
        level = self.levels[max(0, min(self._number, len(self.levels) - 2))]
        sigma = torch.full((), level, dtype=torch.float32, device=x.device)
        call = self._call = self.cached.begin(x, sigma)
        if call.trial is not None and self._guidance.weights:
            self._try(call)
        if call.is_reused:
            denoised, _ = call.reused()
            a, b = self.affine(sigma)
            self._answer = (denoised - a * x) / b

    def _take(self, result: Any, hidden: torch.Tensor, kwargs: dict) -> None:
        """Keep the output of one call of the transformer until the step is over."""
        outputs = result if isinstance(result, tuple) else result.to_tuple()
        if len(outputs) != 1 or not isinstance(outputs[0], torch.Tensor):
            self.cached.lfcache.stand_aside("the transformer has more than one output")
        elif self.adapter.turned(outputs[0]).shape != self.adapter.latent(hidden).shape:
            self.cached.lfcache.stand_aside("the transformer's output has another shape than its latent")
        else:
            self._calls.append((kwargs, outputs[0]))
            self._output = _remade(type(result))

    def _widened(self, tensor: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
        """A tensor of one branch, in x's shape, which holds all branches if nobody has described the pipeline."""
        if tensor.shape[1:] != x.shape[1:] or len(x) % len(tensor):
            return None
        return tensor if len(tensor) == len(x) else torch.cat([tensor] * (len(x) // len(tensor)))

    def _parts(self, output: torch.Tensor, batch: int) -> list[torch.Tensor]:
        """The branches in an answer of the model, in the pipeline's layout."""
        return list(output.split(batch))

    def _computed(self, module: Any, compute: Callable[[], Any]) -> Any:
        """The result of one call of the transformer, with BlockCache on its blocks."""
        run = self.cached.blockcache
        if run is None or run.is_standing_aside:
            return compute()
        if not self.adapter.blocks:
            run.stand_aside(f"the blocks of {type(module).__name__} are not known")
        elif is_compiled(module):
            run.stand_aside("the transformer is compiled as one, use compile_repeated_blocks() instead")
        if run.is_standing_aside:
            return compute()
        current = run.open_pass([((id(module), self._passes), slice(None))])
        with ExitStack() as stack:
            for blocks in self.adapter.blocks:
                stack.enter_context(
                    swapped_forwards(getattr(module, blocks.attribute), current, blocks.streams, blocks.kind)
                )
            result = compute()
        return result if current.close() else compute()

    def _try(self, call: Call, give_up: bool = False) -> None:
        """Make the trials of a call until it is decided. give_up: make none."""
        while call.trial is not None:
            denoised = None
            if not give_up:
                try:
                    denoised = self._trial(call, call.trial)
                except Exception as error:  # only trials are given up: if the full call fails too, the run fails
                    logger.debug("PreciseCache: the trial failed", exc_info=True)
                    self.cached.lfcache.do_without_trials(f"the trial failed with {type(error).__name__}: {error}")
            call.observe(denoised)

    def _trial(self, call: Call, trial: Trial) -> torch.Tensor:
        """The denoised small latent of a trial, in the shape of `trial.x`."""
        module, outputs = self.adapter.transformers()[0], []
        if self.adapter.boundaries:  # only then the device has to be read for this
            module = self.adapter.transformer_at(float(call.sigma if trial.level is None else trial.level))
        for kwargs in self._guidance.calls:
            outputs += self._parts(self.call_model(module, self.adapter.small(kwargs, trial)), len(trial.x))
        a, b = self.affine(trial.sigma)
        return a * trial.x + b * self.adapter.turned(self._guidance.mixed(outputs))


def _remade(kind: Any) -> Callable[[torch.Tensor], Any]:
    """A function that makes what the transformer returns, of this type, from its only output."""
    return (lambda tensor: (tensor,)) if issubclass(kind, tuple) else (lambda tensor: kind(sample=tensor))
