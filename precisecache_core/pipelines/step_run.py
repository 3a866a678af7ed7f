"""One run of a pipeline that calls the model once for each guidance branch, and mixes the branches itself."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from ..blockcache.config import BlockCacheConfig
from ..blockcache.run import EVERYWHERE
from ..cached_run import CachedRun
from ..lfcache.call import Call
from ..lfcache.config import LFCacheConfig
from ..lfcache.latent.trial import Trial
from ..lfcache.window import WHOLE_SCHEDULE
from ..sampling import percent_window, start_sigma
from .adapters import Adapter
from .blocks import blocks_cached
from .branches import MOST, Branches, widened
from .guidance import Guidance
from .obstacles import caches_of, forget, look_for_obstacles
from .offloading import kept_in_place

logger = logging.getLogger("precisecache")


class StepRun:
    """The caches of one run.

    For each branch of a step `answer` is called and, if it has none, `computed` and `take`; then `guided`. The first
    branch of a step decides for all of them. A step that is reused gives every branch the same prediction, and `guided`
    gives it to the scheduler. The first step is always computed: only after it are the branches known, and what weights
    they have in the guided prediction, which a trial needs.

    adapter: the pipeline's. call(module, kwargs): calls the transformer past our hook; returns its only output.
    hidden: the transformer's first input in the run's first call; kwargs: all of them.
    Making it reads the device. A step reads it once to be decided, and once more each if the model's timesteps are no
    views of the scheduler's, if its text is in new tensors, and if the step before was computed.
    """

    def __init__(
        self,
        adapter: Adapter,
        lfcache: LFCacheConfig | None,
        blockcache: BlockCacheConfig | None,
        call: Callable[[Any, dict], torch.Tensor],
        hidden: torch.Tensor,
        kwargs: dict,
    ) -> None:
        self.adapter = adapter
        self.call_model = call
        step = adapter.schedule.step()
        # pipelines that start from a video leave out steps
        self.first = adapter.schedule.step_at(kwargs.get("timestep")) if step is None else step
        # by what the pipeline divides the scheduler's timesteps for the model; None if it does something else
        self._divisor = next((by for by in (1, 1000) if self._is_at(kwargs, self.first, by)), None)
        self.levels = adapter.schedule.levels()[self.first :]
        parametrization = adapter.schedule.parametrization(adapter.patch)
        self.affine = parametrization.affine
        sigmas = torch.tensor(self.levels)
        self.cached = CachedRun(
            lfcache,
            blockcache,
            parametrization,
            len(self.levels) - 1,
            device=hidden.device,
            sigma_window=percent_window(lfcache, sigmas) if lfcache else WHOLE_SCHEDULE,
            block_start_sigma=start_sigma(blockcache, sigmas) if blockcache else EVERYWHERE,
            name=adapter.model_name,
            boundaries=adapter.boundaries,
            schedule=self.levels,
        )
        self._span = ExitStack()  # times the run
        self._span.enter_context(self.cached.sampling())
        self._number = 0  # of this step
        self._level = self.levels[0]  # its noise level
        self._batch: int | None = None  # of the latent
        self._call: Call | None = None
        self._answer: torch.Tensor | None = None  # the prediction of a reused step, float32
        self._branches = Branches()
        self._guidance = Guidance()
        look_for_obstacles(adapter, self.cached)

    @property
    def is_over(self) -> bool:
        """Whether the scheduler has made its last step, as far as `guided` has seen."""
        return self._call is None and self._number >= len(self.levels) - 1

    def is_foreign(self, kwargs: dict) -> bool:
        """Whether a call of the transformer is not one of this run, which must have been broken off.

        kwargs: the transformer's arguments. Asked for before the call is answered.
        """
        step, count = self.adapter.schedule.step(), self._branches.count
        if all(cache.is_standing_aside for cache in caches_of(self.cached)) or not self.cached.journal.calls:
            return False  # nothing is there to answer with
        if self._call is not None and (self._answer is None or count < (self._branches.expected or 0)):
            return False
        if self._divisor is None:
            return count >= MOST
        number = self._number if step is None or self._call is not None else step - self.first
        return not self._is_at(kwargs, self.first + number, self._divisor)

    def computed(self, module: Any, compute: Callable[[], Any]) -> Any:
        """What the transformer answers to one branch of a computed step. compute(): calls it."""
        return blocks_cached(self.cached.blockcache, self.adapter.blocks, module, self._branches.count, compute)

    def answer(self, hidden: torch.Tensor, kwargs: dict) -> Any:
        """What the transformer answers to one branch of a reused step; None if it is to be computed.

        hidden: its first input. kwargs: all of them.
        """
        if self._call is None:
            self._begin(hidden, kwargs)
        self._branches.count += 1
        if self._answer is None:
            return None
        try:
            return self._branches.answer(self.adapter.turned(self._answer).to(hidden.dtype), len(hidden))
        except RuntimeError:
            if self._branches.count == 1:
                raise
            return None  # this branch is computed, in vain: the scheduler gets the answer that the first one got

    def take(self, module: Any, result: Any, hidden: torch.Tensor, kwargs: dict) -> None:
        if self._answer is not None:
            return
        self._branches.note(module, kwargs)
        if self._branches.count > MOST:
            for cache in caches_of(self.cached):
                if not cache.is_standing_aside:
                    cache.stand_aside(f"the transformer was called {MOST + 1} times without a step of the scheduler")
        lfcache = self.cached.lfcache
        if lfcache.is_standing_aside:
            return
        output = self._branches.take(result, kwargs)
        if output is None:
            lfcache.stand_aside("the transformer has more than one output")
        elif self.adapter.turned(output).shape != self.adapter.latent(hidden).shape:
            lfcache.stand_aside("the transformer's output has another shape than its latent")
        if lfcache.is_standing_aside:
            self._branches.calls = []
            self._guidance.forget()

    def guided(self, prediction: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        """What the scheduler gets in place of the guided prediction of this step.

        x: the scheduler's own latent, which is more exact than what the model got; None if it is not known.
        """
        call, answer, self._call, self._answer = self._call, self._answer, None, None
        if call is None:
            return prediction
        if answer is not None and self._branches.count != self._branches.expected:
            forget(self.cached)  # the guidance has changed
        calls = self._branches.close(is_computed=answer is None)
        self._number += 1
        if not self.cached.journal.calls:
            self.cached.latent_shape = list(self.adapter.turned(prediction).shape)
        if answer is not None:
            return self.adapter.turned(answer)[: len(prediction)].to(prediction.dtype)
        new = widened(self.adapter.turned(prediction), call.x)
        if not self.cached.lfcache.is_standing_aside and new is None:
            self.cached.lfcache.stand_aside("the guided prediction has another shape than the latent")
        if self.cached.lfcache.is_standing_aside or new is None:
            self._try(call, give_up=True)
            call.finish(call.x)
            return prediction
        branches = [part for _, output in calls for part in output.split(len(prediction))]
        self._guidance.fit([kwargs for kwargs, _ in calls], branches, prediction)
        if call.trial is not None:  # the first step: its trials had to wait for the branches
            call.note_computed()
            self._try(call)
        if x is not None and not self.adapter.schedule.is_scaled:
            x = widened(self.adapter.turned(x), call.x)
            call.x = call.x if x is None else x.float()
        a, b = self.affine(call.sigma)
        denoised = a * call.x + b * new.float()
        finished = call.finish(denoised)
        if self.cached.lfcache.planner is not None:  # all of its trials are made
            self._guidance.forget()
        if finished is denoised:
            return prediction
        return self.adapter.turned((finished - a * call.x) / b)[: len(prediction)].to(prediction.dtype)

    def close(self) -> dict | None:
        """The run is over: drop every tensor. Returns its report entry; None if nothing was sampled."""
        self._span.close()
        self._call = self._answer = None
        self._branches, self._guidance = Branches(), Guidance()
        try:
            self.cached.end()
            journal = self.cached.journal
            return self.cached.report() if journal.calls or journal.warnings else None
        finally:
            self.cached.release()

    def _is_at(self, kwargs: dict, step: int, divisor: int) -> bool:
        timestep = kwargs.get("timestep")
        return isinstance(timestep, torch.Tensor) and self.adapter.schedule.is_at(timestep, step, divisor)

    def _begin(self, hidden: torch.Tensor, kwargs: dict) -> None:
        lfcache = self.cached.lfcache
        latent = self.adapter.latent(hidden)
        if self._batch is None:
            self._batch = max(1, len(latent) // self.adapter.branches)
        if hidden.requires_grad and not lfcache.is_standing_aside:
            lfcache.stand_aside("gradients are kept, so use torch.no_grad()")
        if self._branches.is_text_new(kwargs):
            forget(self.cached)
        x = latent[: self._batch].float()
        if not lfcache.is_standing_aside and not self._guidance.is_sum():
            lfcache.stand_aside("the guidance is not a sum of its branches with weights that add up to one")
        step = self.adapter.schedule.step()
        self._number = self._number if step is None else step - self.first
        self._level = self.levels[max(0, min(self._number, len(self.levels) - 2))]
        sigma = torch.full((), self._level, dtype=torch.float32, device=x.device)
        call = self._call = self.cached.begin(x, sigma)
        if call.trial is not None and self._guidance.weights:
            self._try(call)
        if call.is_reused:
            denoised, _ = call.reused()
            a, b = self.affine(sigma)
            self._answer = (denoised - a * x) / b

    def _try(self, call: Call, give_up: bool = False) -> None:
        """Make the trials of a call until it is decided. give_up: make none."""
        own = self.adapter.transformer_at(self._level)
        with kept_in_place([module for module in self.adapter.transformers() if module is not own]):
            while call.trial is not None:
                denoised = None
                if not give_up:
                    try:
                        denoised = self._trial(call.trial)
                    except Exception as error:  # only trials are given up: if the full call fails too, the run fails
                        logger.debug("PreciseCache: the trial failed", exc_info=True)
                        self.cached.lfcache.do_without_trials(f"the trial failed with {type(error).__name__}: {error}")
                call.observe(denoised)

    def _trial(self, trial: Trial) -> torch.Tensor:
        """The denoised small latent of a trial, in the shape of `trial.x`."""
        module, outputs = self.adapter.transformers()[0], []
        if self.adapter.boundaries:  # only then the device may have to be read for this
            module = self.adapter.transformer_at(self._level if trial.level is None else float(trial.level))
        for kwargs in self._guidance.calls:
            outputs += self.call_model(module, self.adapter.small(kwargs, trial)).split(len(trial.x))
        weights = self.adapter.weights_of(module) if module is not self._branches.module and len(outputs) == 2 else None
        a, b = self.affine(trial.sigma)
        return a * trial.x + b * self.adapter.turned(self._guidance.mixed(outputs, weights))
