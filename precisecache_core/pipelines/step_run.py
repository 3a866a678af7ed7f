"""One run of a pipeline that calls the model once for each guidance branch, and mixes the branches itself."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
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

# The guided prediction may differ from the branches' weighted sum by this share of its norm: in bfloat16 rounding
# makes up to 1 %. What is not a sum of them at all (APG) differs by far more.
NOT_A_SUM = 0.03

logger = logging.getLogger("precisecache")


@dataclass
class Branch:
    """One call of a transformer in the last computed step."""

    kwargs: dict
    outputs: list[torch.Tensor]


class StepRun:
    """The caches of one run.

    The pipeline calls `forward` for each branch of a step and then `guided`. The first branch of a step decides for all
    of them. A step that is reused gives every branch the same prediction, and any guidance whose weights sum to one
    gives it back. The first step is always computed: only after it are the branches known, and what weights they
    have in the guided prediction, which a trial needs.

    adapter: the pipeline's. call(module, kwargs): calls the transformer past our hook.
    """

    def __init__(
        self,
        adapter: Adapter,
        lfcache: LFCacheConfig | None,
        blockcache: BlockCacheConfig | None,
        call: Callable[[Any, dict], torch.Tensor],
    ) -> None:
        self.adapter = adapter
        self.call_model = call
        self.first = adapter.step() or 0  # pipelines that start from a video leave out steps
        self.levels = adapter.levels()[self.first :]
        self.affine = adapter.parametrization().affine
        sigmas = torch.tensor(self.levels)
        module = adapter.transformers()[0]
        self.cached = CachedRun(
            lfcache,
            blockcache,
            adapter.parametrization(),
            len(self.levels) - 1,
            device=module.device,
            sigma_window=percent_window(lfcache, sigmas) if lfcache else WHOLE_SCHEDULE,
            block_start_sigma=start_sigma(blockcache, sigmas) if blockcache else EVERYWHERE,
            name=type(module).__name__,
            boundaries=adapter.boundaries(),
            schedule=self.levels,
        )
        reason = adapter.obstacle() if lfcache else None
        if reason and not self.cached.lfcache.is_standing_aside:
            self.cached.lfcache.do_without_trials(reason)
        self._call: Call | None = None
        self._answer: torch.Tensor | None = None  # the prediction of a reused step
        self._branches: list[Branch] = []  # of this step
        self._known: list[Branch] = []  # of the last computed step
        self._weights: list[torch.Tensor] = []  # of its branches in its guided prediction
        self._unexplained: torch.Tensor | None = None  # share of that prediction, 0-dim; read with the next step

    def forward(self, module: Any, kwargs: dict, compute: Callable[[], Any]) -> Any:
        """What the transformer answers to one branch. kwargs: its arguments; compute(): calls it."""
        hidden = kwargs["hidden_states"]
        if self._call is None:
            self._begin(self.adapter.latent(hidden))
        if self._answer is not None:
            answer = self.adapter.turned(self._answer).to(hidden.dtype)
            return _as_output(torch.cat([answer] * self.adapter.branches()), kwargs)
        result = self._computed(module, compute)
        self._branches.append(Branch(kwargs, self._parts(result[0] if isinstance(result, tuple) else result.sample)))
        return result

    def guided(self, prediction: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        """What the scheduler gets in place of the guided prediction of this step.

        x: the scheduler's own latent, which is more exact than what the model got; None if it is not known.
        """
        call, answer, self._call, self._answer = self._call, self._answer, None, None
        if call is None:
            return prediction
        if answer is not None:
            return self.adapter.turned(answer).to(prediction.dtype)
        new = self.adapter.turned(prediction)
        if not self.cached.lfcache.is_standing_aside:
            self._known, self._branches = self._branches, []
            self._fit(new)
        self._branches = []
        if call.trial is not None:  # the first step: its trials had to wait for the branches
            call.note_computed()
            self._try(call)
        if x is not None and not self.adapter.is_scaled and self.adapter.turned(x).shape == call.x.shape:
            call.x = self.adapter.turned(x)
        a, b = self.affine(call.sigma)
        denoised = a * call.x + b * new.to(call.x.dtype)
        finished = call.finish(denoised)
        if finished is denoised:
            return prediction
        return self.adapter.turned((finished - a * call.x) / b).to(prediction.dtype)

    def close(self) -> dict | None:
        """The run is over: drop every tensor. Returns its report entry; None if nothing was sampled."""
        self.cached.end()
        entry = self.cached.report() if self.cached.journal.calls else None
        self.cached.release()
        self._call = self._answer = self._unexplained = None
        self._branches, self._known, self._weights = [], [], []
        return entry

    def _begin(self, x: torch.Tensor) -> None:
        lfcache, calls = self.cached.lfcache, len(self.cached.journal.calls)
        if not calls:
            self.cached.latent_shape = list(x.shape)
        if self._unexplained is not None and not lfcache.is_standing_aside:
            if not float(self._unexplained) <= NOT_A_SUM:
                lfcache.stand_aside("the guidance is not a sum of its branches with weights that add up to one")
            self._unexplained = None
        step = self.adapter.step()
        number = calls if step is None else step - self.first
        sigma = torch.tensor(self.levels[min(number, len(self.levels) - 2)], device=x.device)
        call = self._call = self.cached.begin(x, sigma)
        if call.trial is not None and self._weights:
            self._try(call)
        if call.is_reused:
            denoised, _ = call.reused()
            a, b = self.affine(sigma)
            self._answer = (denoised - a * x) / b

    def _parts(self, prediction: torch.Tensor) -> list[torch.Tensor]:
        """The branches in an answer of the model, each in the latent's layout."""
        return [self.adapter.turned(part) for part in prediction.chunk(self.adapter.branches())]

    def _computed(self, module: Any, compute: Callable[[], Any]) -> Any:
        """The result of one call of the transformer, with BlockCache on its blocks."""
        run = self.cached.blockcache
        if run is None or run.is_standing_aside:
            return compute()
        if not self.adapter.blocks:
            run.stand_aside(f"the blocks of {type(module).__name__} are not known")
            return compute()
        current = run.open_pass([((id(module), len(self._branches)), slice(None))])
        with ExitStack() as stack:
            for blocks in self.adapter.blocks:
                stack.enter_context(
                    swapped_forwards(getattr(module, blocks.attribute), current, blocks.streams, blocks.kind)
                )
            result = compute()
        return result if current.close() else compute()

    def _fit(self, guided: torch.Tensor) -> None:
        """The branches' weights in the guided prediction: least squares, with weights that sum to one."""
        outputs = [output.float().flatten() for branch in self._known for output in branch.outputs]
        wanted = guided.float().flatten()
        first, size = outputs[0], wanted.norm().clamp_min(1e-12)
        if len(outputs) == 1:
            self._weights = [torch.ones_like(size)]
            self._unexplained = (wanted - first).norm() / size
            return
        differences = torch.stack([output - first for output in outputs[1:]], 1)
        target = wanted - first
        weights = torch.linalg.lstsq(differences.T @ differences, (differences.T @ target)[:, None]).solution[:, 0]
        self._weights = [1 - weights.sum(), *weights]
        self._unexplained = (differences @ weights - target).norm() / size

    def _try(self, call: Call) -> None:
        """Make the trials of a call until it is decided."""
        while call.trial is not None:
            try:
                denoised = self._trial(call.trial)
            except Exception as error:  # only the trials are given up: if the full call fails too, the run fails
                logger.debug("PreciseCache: the trial failed", exc_info=True)
                self.cached.lfcache.do_without_trials(f"the trial failed with {type(error).__name__}: {error}")
                denoised = None
            call.observe(denoised)

    def _trial(self, trial: Trial) -> torch.Tensor:
        """The denoised small latent of a trial, in the shape of `trial.x`."""
        module, outputs = self.adapter.transformers()[0], []
        if self.adapter.boundaries():  # only then the device has to be read for this
            module = self.adapter.transformer_at(float(trial.sigma if trial.level is None else trial.level))
        for branch in self._known:
            outputs += self._parts(self.call_model(module, self.adapter.small(branch.kwargs, trial)))
        prediction = sum(weight * output.float() for weight, output in zip(self._weights, outputs))
        a, b = self.affine(trial.sigma)
        return (a * trial.x + b * prediction).to(trial.x.dtype)


def _as_output(prediction: torch.Tensor, kwargs: dict) -> Any:
    if not kwargs.get("return_dict", True):
        return (prediction,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=prediction)
