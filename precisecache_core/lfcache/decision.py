"""How one call is decided: by the window, by the plan or by its LFD, which may need trials; all ranks decide alike.

Each trial and each decision is settled with the other ranks (see `Agreement`): a call is reused only if all of them
have their answer in hand. Every way through `begin` and `observe` ends in `Call.answer`, in `Call.compute`, or in a
trial.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..agreement import ASIDE, DECIDE, TRIAL, largest_of
from ..record.journal import Reason
from .change import Reading
from .latent.trial import Trial
from .plan.plan import TOLERANCE
from .plan.planner import Planner
from .window import WHOLE_SCHEDULE, is_inside

if TYPE_CHECKING:
    from .call import Call


@dataclass(frozen=True)
class Settled:
    """What the ranks settled about a call.

    is_able: whether it may be reused. own: the LFD that decides it, measured: its LFD, the largest of all ranks.
    is_spoilt: whether the last computed prediction of a rank was not finite.
    """

    is_able: bool
    own: float | None
    measured: float | None
    is_spoilt: bool


def begin(call: "Call") -> None:
    """Decide the call, or make the trial that is needed to decide it."""
    run = call.run
    if run.agreement.wishes("lfcache"):
        run.agreement.settle(ASIDE, False)
    if run.is_standing_aside:
        return call.compute(Reason.ASIDE)
    planner = run.stage.planner
    if planner is not None and planner.plan is None:
        _ask_for(call, _made(call, lambda: planner.begin(call.x)))
    if call.trial is None:
        return _choose(call)
    return call.start_model()


def observe(call: "Call", trial: Trial, denoised: torch.Tensor | None) -> None:
    """Take a trial's result; arguments as in `Call.observe`."""
    run = call.run
    is_usable = denoised is not None and denoised.shape == trial.x.shape
    if is_usable:
        run.journal.trials += 1
    else:
        run.do_without_trials("the model cannot run on a small latent")
    if run.stage.planner is not None:
        return _rehearse(call, run.stage.planner, denoised if is_usable else None)
    if denoised is not None and is_usable:
        try:
            call.trial_prediction = trial.prediction(denoised, run.model.affine(call.sigma))
            reading = _read(call)
        except (RuntimeError, MemoryError) as error:
            run.give_up_trials(error)
            call.trial_prediction = None
            reading = _read(call)
    else:
        reading = _read(call)
    return _decide(call, reading)


def _made(call: "Call", make: Callable[[], Trial | None]) -> Trial | None:
    """The trial that `make` makes; None if there is no memory for it."""
    try:
        return make()
    except (RuntimeError, MemoryError) as error:
        call.run.give_up_trials(error)
        return None


def _ask_for(call: "Call", trial: Trial | None) -> None:
    """Let the caller make a trial, if every rank has one."""
    agreement = call.run.agreement
    answer = agreement.settle(TRIAL, trial is not None and not agreement.wishes("trials"))
    call.trial = trial if answer.is_able else None


def _rehearse(call: "Call", planner: Planner, denoised: torch.Tensor | None) -> None:
    """Go on with the rehearsal; if that was its last trial, or it failed, decide the call by the plan.

    denoised: the last trial's result; None if it failed.
    """
    run = call.run
    following = _made(call, lambda: planner.answer(denoised)) if planner.plan is None else None
    if planner.plan is None and not planner.is_over:
        _ask_for(call, following)
    elif planner.plan is None:
        _made(call, planner.conclude)
        if not planner.is_rehearsed:
            run.do_without_trials("the model's answers on a small latent were not finite")
    return call.start_model() if call.trial is not None else _choose(call)


def _choose(call: "Call") -> None:
    """Decide the call by the window, by the plan if there is one, or by its LFD, which may need a trial."""
    run = call.run
    if run.is_standing_aside:
        return call.compute(Reason.ASIDE)
    stage = run.stage
    if run.sigma_window != WHOLE_SCHEDULE:  # only then the device has to be read for this
        call.record.sigma = call.sigma.item()
    if isinstance(call.record.sigma, float) and not is_inside(run.sigma_window, call.record.sigma):
        is_kept = stage.predictions.is_owing
        if is_kept:
            stage.controller.decide(None)  # so that the next LFD is read, which shows whether this one is finite
        _settle(call, call.record.sigma, False)
        return call.compute(Reason.WINDOW, is_kept)
    if stage.planner is not None:
        return _follow(call, stage.planner)
    if stage.source.makes_trials and not stage.controller.needs_trial and call.has_prediction:
        level = call.record.sigma = call.sigma.item()
        if level > 0 and not run.is_beyond_boundary(level):
            return _reuse_untried(call, level)
    if stage.source.makes_trials:
        _ask_for(call, _made(call, lambda: stage.source.trial(call.x, call.sigma)))
    if call.trial is not None:
        return call.start_model()
    return _decide(call, _read(call))


def _reuse_untried(call: "Call", level: float) -> None:
    """Reuse a call that needs no LFD."""
    controller = call.run.stage.controller
    if _settle(call, level, call.has_answer(level)).is_able:
        controller.skip_trial()
        return call.answer(Reason.BELOW)
    controller.decide(None)
    return call.compute(Reason.NO_LFD, is_kept=True)


def _read(call: "Call") -> Reading:
    """Get this call's LFD from the stage's source, and act on what the source found."""
    run, stage = call.run, call.run.stage
    controller, source = stage.controller, stage.source
    if controller.delta_max is None and not controller.is_warmup:
        controller.delta_max = run.agreement.largest(source.largest())
    reading = source.read(call.sigma, call.trial_prediction, controller.is_warmup)
    if reading.is_spoilt:
        stage.forget_predictions()
    if source.obstacle_met:
        run.do_without_trials(source.obstacle_met)
    return reading


def _decide(call: "Call", reading: Reading) -> None:
    """Decide the call by its LFD."""
    run = call.run
    if run.is_standing_aside:
        return call.compute(Reason.ASIDE)
    controller = run.stage.controller
    may_reuse = call.has_prediction and not run.is_beyond_boundary(reading.sigma)
    reason = Reason.WARMUP if controller.is_warmup else Reason.THRESHOLD
    own = reading.lfd if may_reuse or controller.is_warmup else None
    is_ready = controller.would_reuse(own) and call.has_answer(reading.sigma)
    told = _settle(call, reading.sigma, is_ready, own, reading.lfd, reading.is_spoilt)
    lfd, measured = told.own, told.measured
    call.record.sigma, call.record.lfd = reading.sigma, measured
    if measured is not None and not math.isfinite(measured):
        run.journal.warn("a low-frequency difference was not finite: that call was computed")
    if controller.decide(lfd) and told.is_able:
        return call.answer(Reason.BELOW)
    return call.compute(Reason.NO_LFD if lfd is None and reason == Reason.THRESHOLD else reason, is_kept=True)


def _follow(call: "Call", planner: Planner) -> None:
    """Decide the call by the plan; in doubt it is computed, and the plan takes note."""
    run, stage = call.run, call.run.stage
    level, is_spoilt = stage.read_level(call.sigma)
    call.record.sigma, call.record.lfd = level, planner.lfd(level)
    if is_spoilt:
        stage.forget_predictions()
    plan = planner.plan
    can_reuse = level > 0 and call.has_prediction and not run.is_beyond_boundary(level)
    is_ready = can_reuse and plan is not None and not plan.computes(level) and call.has_answer(level)
    told = _settle(call, level, is_ready, is_spoilt=is_spoilt)
    if told.is_spoilt:
        run.journal.warn("a prediction was not finite: the next call was computed")
    if told.is_able:
        return call.answer(Reason.PLANNED)
    return call.compute(plan.reason(level) if plan is not None else Reason.UNPLANNED, is_kept=True)


def _settle(
    call: "Call",
    level: float,
    is_ready: bool,
    own: float | None = None,
    measured: float | None = None,
    is_spoilt: bool = False,
) -> Settled:
    """Settle with the other ranks whether the call is reused.

    is_ready: whether this rank would reuse it and has its answer. own: the LFD by which it decides; measured: its
    LFD. is_spoilt: whether its last computed prediction was not finite.
    """
    answer = call.run.agreement.settle(DECIDE, is_ready, (level, own, measured, is_spoilt))
    levels, owns, all_measured, spoilt = zip(*answer.values)
    is_same = max(levels) - min(levels) <= TOLERANCE * abs(max(levels))
    told = Settled(answer.is_able and is_same, largest_of(owns), largest_of(all_measured), any(spoilt))
    if told.is_spoilt and not call.run.is_standing_aside:
        call.run.stage.forget_predictions()
    return told
