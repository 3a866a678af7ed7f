"""One model call: the decision to compute or reuse it, and its result."""

import math
from typing import TYPE_CHECKING

import torch

from ..record.journal import COMPUTED, REUSED, CallRecord, Reason
from .change import Reading
from .latent.trial import Trial
from .plan.planner import Planner
from .window import WHOLE_SCHEDULE, is_inside

if TYPE_CHECKING:
    from .run import LFCacheRun


class Call:
    """One call of a run, from `LFCacheRun.begin` to `reused` or `finish`.

    trial: the small latent that the caller runs the model on first; its result goes to `observe`, after which there
        may be another one. None if this call needs no trial, or no more.
    is_reused: whether the call is answered from the cache. Final once `observe` was called, or from the
        beginning if there is no trial.
    uncond: after `finish`, the unconditional latent for the sampler; None if none was given.
    """

    def __init__(self, run: "LFCacheRun", x: torch.Tensor, sigma: torch.Tensor, with_uncond: bool) -> None:
        self.run = run
        self.x = x
        self.sigma = sigma
        self.with_uncond = with_uncond
        self.trial: Trial | None = None
        self.is_reused = False
        self.uncond: torch.Tensor | None = None
        self._record = CallRecord(COMPUTED, sigma, None)
        self._results: list[torch.Tensor] = []  # of a reused call: denoised and, if requested, uncond
        self._is_kept = False  # whether `finish` keeps the prediction
        self._trial_prediction: torch.Tensor | None = None
        self._start = self._model_start = run.journal.stopwatch.mark()
        self._prepare()

    def _prepare(self) -> None:
        """Decide the call, or make the trial that is needed to decide it."""
        run = self.run
        if run.is_standing_aside:
            return self._start_model(Reason.ASIDE)
        planner = run.stage.planner
        if planner is not None and planner.plan is None:
            try:
                self.trial = planner.begin(self.x)
            except (RuntimeError, MemoryError) as error:
                run.give_up_trials(error)
        if self.trial is not None:
            return self._start_model()
        return self._choose()

    def _choose(self) -> None:
        """Decide the call by the window, by the plan if there is one, or by its LFD, which may need a trial."""
        run, stage = self.run, self.run.stage
        if run.sigma_window != WHOLE_SCHEDULE:  # only then the device has to be read for this
            self._record.sigma = self.sigma.item()
        if isinstance(self._record.sigma, float) and not is_inside(run.sigma_window, self._record.sigma):
            self._is_kept = stage.predictions.is_owing
            if self._is_kept:
                stage.controller.decide(None)  # so that the next LFD is read, which shows whether this one is finite
            return self._start_model(Reason.WINDOW)
        if stage.planner is not None:
            return self._follow(stage.planner)
        if stage.source.makes_trials and not stage.controller.needs_trial and self._has_prediction():
            level = self._record.sigma = self.sigma.item()
            if level > 0 and not run.is_beyond_boundary(level):
                stage.controller.skip_trial()
                return self._reuse(level, Reason.BELOW)
        try:
            self.trial = stage.source.trial(self.x, self.sigma)
        except (RuntimeError, MemoryError) as error:
            run.give_up_trials(error)
        if self.trial is None:
            return self._decide(self._read())
        return self._start_model()

    def observe(self, denoised: torch.Tensor | None) -> None:
        """Take a trial's result. Then the call is decided, unless `trial` holds another one.

        denoised: the model's denoised small latent, in the shape of `trial.x`; None if the model could not
            run on it.
        """
        trial, self.trial = self.trial, None
        assert trial is not None, "this call has no trial"
        run = self.run
        run.journal.stopwatch.add("trial", self._model_start)
        is_usable = denoised is not None and denoised.shape == trial.x.shape
        if is_usable:
            run.journal.trials += 1
        else:
            run.do_without_trials("the model cannot run on a small latent")
        if run.stage.planner is not None:
            return self._rehearse(run.stage.planner, denoised if is_usable else None)
        if denoised is not None and is_usable:
            try:
                self._trial_prediction = trial.prediction(denoised, run.model.affine(self.sigma))
                reading = self._read()
            except (RuntimeError, MemoryError) as error:
                run.give_up_trials(error)
                self._trial_prediction = None
                reading = self._read()
        else:
            reading = self._read()
        return self._decide(reading)

    def _rehearse(self, planner: Planner, denoised: torch.Tensor | None) -> None:
        """Go on with the rehearsal; if that was its last trial, or it failed, decide the call by the plan.

        denoised: the last trial's result; None if it failed.
        """
        if denoised is not None and planner.plan is None:
            try:
                self.trial = planner.answer(denoised)
            except (RuntimeError, MemoryError) as error:
                self.run.give_up_trials(error)
            if planner.plan is not None and not planner.is_rehearsed:
                self.run.do_without_trials("the model's answers on a small latent were not finite")
        return self._start_model() if self.trial is not None else self._choose()

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
        run.journal.stopwatch.add("compute", self._model_start)
        level = self._record.sigma
        if self.is_reused:
            run.stage.predictions.revoke()
            self._record.reason = Reason.NO_LFD
        is_kept = self._is_kept and not run.is_standing_aside and denoised.shape == self.x.shape
        if is_kept and isinstance(level, float) and level > 0:
            try:
                denoised, self.uncond = self._keep(level, denoised, uncond)
            except (RuntimeError, MemoryError) as error:
                run.stand_aside_without_memory(error, "no memory for a prediction")
        self.uncond = self.uncond if self.uncond is not None else uncond
        self._close(COMPUTED)
        return denoised

    def _has_prediction(self) -> bool:
        return self.run.stage.predictions.matches(self.x, self.with_uncond)

    def _read(self) -> Reading:
        """Get this call's LFD from the stage's source, and act on what the source found."""
        run, stage = self.run, self.run.stage
        controller, source = stage.controller, stage.source
        if controller.delta_max is None and not controller.is_warmup:
            controller.delta_max = source.largest()
        reading = source.read(self.sigma, self._trial_prediction, controller.is_warmup)
        if reading.lfd is not None and not math.isfinite(reading.lfd):
            run.journal.warn("a low-frequency difference was not finite: that call was computed")
        if reading.is_spoilt:
            stage.forget_predictions()
        if source.obstacle_met:
            run.do_without_trials(source.obstacle_met)
        return reading

    def _decide(self, reading: Reading) -> None:
        run, stage = self.run, self.run.stage
        self._record.sigma, self._record.lfd = reading.sigma, reading.lfd
        may_reuse = self._has_prediction() and not run.is_beyond_boundary(reading.sigma)
        controller = stage.controller
        reason = Reason.WARMUP if controller.is_warmup else Reason.THRESHOLD
        lfd = reading.lfd if may_reuse or controller.is_warmup else None
        if controller.decide(lfd):
            return self._reuse(reading.sigma, Reason.BELOW)
        self._is_kept = True
        return self._start_model(Reason.NO_LFD if lfd is None and reason == Reason.THRESHOLD else reason)

    def _follow(self, planner: Planner) -> None:
        """Decide the call by the plan; in doubt it is computed, and the plan takes note."""
        run, stage = self.run, self.run.stage
        level, is_spoilt = stage.read_level(self.sigma)
        self._record.sigma, self._record.lfd = level, planner.lfd(level)
        if is_spoilt:
            stage.forget_predictions()
            run.journal.warn("a prediction was not finite: the next call was computed")
        can_reuse = level > 0 and self._has_prediction() and not run.is_beyond_boundary(level)
        plan = planner.plan
        if can_reuse and plan is not None and not plan.computes(level):
            return self._reuse(level, Reason.PLANNED)
        self._is_kept = True
        return self._start_model(plan.reason(level) if plan is not None else Reason.UNPLANNED)

    def _reuse(self, level: float, reason: str) -> None:
        run, self._record.reason = self.run, reason
        try:
            predictions = run.stage.predictions.predict(self.x, level, self.with_uncond)
            self._results = run.model.denoised(self.x, self.sigma, *predictions)
            self.is_reused = True
        except (RuntimeError, MemoryError) as error:
            run.stand_aside_without_memory(error, "no memory to reuse a prediction")
            self._record.reason = Reason.ASIDE
        self._start_model()

    def _start_model(self, reason: str | None = None) -> None:
        """The caller runs the model next, for this reason if it is to compute the call: start timing it."""
        self._record.reason = reason or self._record.reason
        self._model_start = self.run.journal.stopwatch.mark()

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
            self._record.lfd,
            new[0],
            new[1] if uncond is not None else None,
            self._trial_prediction,
            run.is_beyond_boundary(level),
        )
        self._record.correction = stage.predictions.correction
        run.journal.note_bytes("lfcache", stage.predictions.nbytes)
        if any(answer is not prediction for answer, prediction in zip(answers, new)):
            latents = run.model.denoised(self.x, self.sigma, *answers)
        return latents[0], latents[1] if uncond is not None else None

    def _close(self, decision: str) -> None:
        self._record.decision = decision
        run = self.run
        planner = run.stage.planner if not run.is_standing_aside else None
        if planner is not None and planner.plan is not None and decision == COMPUTED:
            planner.plan.note_computed(float(self._record.sigma))
        if not run.journal.calls or run.journal.calls[-1] is not self._record:
            run.record(self._record)
        run.journal.stopwatch.add("call", self._start)
