"""One model call: the decision to compute or reuse it, and its result."""

from typing import TYPE_CHECKING

import torch

from ..agreement import KEPT
from ..memory import raise_unless_out_of_memory
from ..record.journal import COMPUTED, REUSED, CallRecord, Reason
from . import decision
from .latent.trial import Trial

if TYPE_CHECKING:
    from .run import LFCacheRun


class Call:
    """One call of a run, from `LFCacheRun.begin` to `reused` or `finish`.

    trial: the small latent that the caller runs the model on first; its result goes to `observe`, after which there
        may be another one. None if this call needs no trial, or no more.
    is_reused: whether the call is answered from the cache. Final once `observe` was called, or from the
        beginning if there is no trial.
    uncond: after `finish`, the unconditional latent for the sampler; None if none was given.
    record: what the journal gets. trial_prediction: the trial's prediction at the full sigma; None if none was made.
    """

    def __init__(self, run: "LFCacheRun", x: torch.Tensor, sigma: torch.Tensor, with_uncond: bool) -> None:
        self.run = run
        self.x = x
        self.sigma = sigma
        self.with_uncond = with_uncond
        self.trial: Trial | None = None
        self.is_reused = False
        self.uncond: torch.Tensor | None = None
        self.trial_prediction: torch.Tensor | None = None
        self.record = CallRecord(COMPUTED, sigma, None)
        self._results: list[torch.Tensor] = []  # of a reused call: denoised and, if requested, uncond
        self._is_kept = False  # whether `finish` keeps the prediction
        self._is_timed = False  # whether the time of its computation was taken
        self._start = self._model_start = run.journal.stopwatch.mark()
        decision.begin(self)

    def observe(self, denoised: torch.Tensor | None) -> None:
        """Take a trial's result. Then the call is decided, unless `trial` holds another one.

        denoised: the model's denoised small latent, in the shape of `trial.x`; None if the model could not
            run on it.
        """
        trial, self.trial = self.trial, None
        assert trial is not None, "this call has no trial"
        self.run.journal.stopwatch.add("trial", self._model_start)
        decision.observe(self, trial, denoised)

    @property
    def has_prediction(self) -> bool:
        """Whether everything is there that an answer from the cache needs."""
        return self.run.stage.predictions.matches(self.x, self.with_uncond)

    def has_answer(self, level: float) -> bool:
        """Make the answer from the cache; False if there is no memory for it, in which case the run stands aside."""
        run = self.run
        try:
            predictions = run.stage.predictions.predict(self.x, level, self.with_uncond)
            self._results = run.model.denoised(self.x, self.sigma, *predictions)
            return True
        except (RuntimeError, MemoryError) as error:
            raise_unless_out_of_memory(error)
            run.stand_aside("no memory to reuse a prediction")
            return False

    def answer(self, reason: str) -> None:
        """The call is reused, for this reason, with the answer that `has_answer` made."""
        self.is_reused = True
        self.record.reason = reason
        self.start_model()

    def compute(self, reason: str, is_kept: bool = False) -> None:
        """The call is computed, for this reason. is_kept: whether `finish` keeps its prediction."""
        if self._results:  # an answer that another rank does not have
            self._results = []
            self.run.stage.predictions.revoke()
        self.record.reason = Reason.ASIDE if self.run.is_standing_aside else reason
        self._is_kept = is_kept
        self.start_model()

    def note_computed(self) -> None:
        """The model has computed the call, and `finish` follows after its trials (see `pipelines`)."""
        self.run.journal.stopwatch.add("compute", self._model_start)
        self._is_timed = True
        self.start_model()

    def start_model(self) -> None:
        """The caller runs the model next: start timing it."""
        self._model_start = self.run.journal.stopwatch.mark()

    def reused(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(denoised, uncond) of a reused call, in x's shape; uncond is None unless `with_uncond` was set.

        A caller that cannot use them may still compute the call and call `finish`; the call then counts
        as computed.
        """
        assert self.is_reused, "this call has to be computed"
        self._close(REUSED)
        denoised, *uncond = self._results
        return denoised, uncond[0] if uncond else None

    def finish(self, denoised: torch.Tensor, uncond: torch.Tensor | None = None) -> torch.Tensor:
        """Take the model's output, keep it for later calls, and return the latent for the sampler.

        denoised: the guided denoised latent, in x's shape. uncond: the denoised latent of the
            unconditional branch, in x's shape, if the sampler reads it too.
        """
        run = self.run
        if not self._is_timed:
            run.journal.stopwatch.add("compute", self._model_start)
        level = self.record.sigma
        if self.is_reused:
            run.stage.predictions.revoke()
            self.record.reason = Reason.NO_LFD
        is_kept = self._is_kept and not run.is_standing_aside and denoised.shape == self.x.shape
        answers: tuple[torch.Tensor, torch.Tensor | None] | None = None
        if is_kept and isinstance(level, float) and level > 0:
            try:
                answers = self._keep(level, denoised, uncond)
            except (RuntimeError, MemoryError) as error:
                raise_unless_out_of_memory(error)
                run.stand_aside("no memory for a prediction")
        if is_kept and run.is_corrected and not run.agreement.settle(KEPT, answers is not None).is_able:
            answers = None  # a rank has nothing to correct with, and all ranks have to give the sampler the same
        denoised, self.uncond = answers or (denoised, uncond)
        self._close(COMPUTED)
        return denoised

    def _keep(
        self, level: float, denoised: torch.Tensor, uncond: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Keep the call's predictions; returns the denoised latents with what correction makes of them."""
        run, stage = self.run, self.run.stage
        latents = [denoised] if uncond is None else [denoised, uncond]
        new = [run.model.prediction(self.x, self.sigma, latent) for latent in latents]
        answers = stage.keep(
            run.model.position(self.x, self.sigma),
            level,
            self.record.lfd,
            new[0],
            new[1] if uncond is not None else None,
            self.trial_prediction,
            run.is_beyond_boundary(level),
        )
        self.record.correction = stage.predictions.correction
        run.journal.note_bytes("lfcache", stage.predictions.nbytes)
        if any(answer is not prediction for answer, prediction in zip(answers, new)):
            latents = run.model.denoised(self.x, self.sigma, *answers)
        return latents[0], latents[1] if uncond is not None else None

    def _close(self, decision: str) -> None:
        self.record.decision = decision
        run = self.run
        planner = run.stage.planner if not run.is_standing_aside else None
        if planner is not None and planner.plan is not None and decision == COMPUTED:
            planner.plan.note_computed(float(self.record.sigma))
        if not run.journal.calls or run.journal.calls[-1] is not self.record:
            run.record(self.record)
        run.journal.stopwatch.add("call", self._start)
