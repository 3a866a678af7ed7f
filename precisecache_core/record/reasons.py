"""Why a run reused nothing, or should not be trusted: the report's answers to "is it working?"."""

from typing import Protocol


class Decisions(Protocol):
    """The part of the run's controller that is read here (see `lfcache.controller`)."""

    alpha: float
    warmup: int
    calls: int
    delta_max: float | None
    smallest: float | None

    @property
    def threshold(self) -> float | None: ...


POOR, ENOUGH = 0.5, 6  # an agreement below this says that trials guess, if it is of at least so many pairs


def why_trials_are_doubtful(agreement: float | None, pairs: int) -> str | None:
    """One sentence if the trials did not agree with the true change; None if they did or too few were compared.

    agreement: rank correlation in [-1, 1], None where it is not known. pairs: the number of trials compared.
    """
    if agreement is None or pairs < ENOUGH or agreement >= POOR:
        return None
    return (
        f"the trials hardly agreed with the real change (agreement {agreement:.2f}): set factor_t to 1, "
        "and if that is not enough, factor_hw to 2"
    )


def why_nothing_was_reused(decisions: str, controller: Decisions, has_scale_advice: bool = False) -> str | None:
    """One sentence that says why a run reused no call and, if possible, what helps; None if it reused one.

    Source: ours.
    decisions: one letter per call, "C" or "R". controller: in its state at the end of the run.
    has_scale_advice: whether another warning already says how to get a better scale for alpha.
    """
    if "R" in decisions or not decisions:
        return None
    if controller.alpha == 0:
        return "alpha is 0: nothing is reused"
    if controller.calls == 0:
        return "no call lay between start_percent and end_percent: nothing was reused"
    if controller.calls <= controller.warmup:
        return f"all {controller.calls} calls that may be reused were warm-up calls: use more steps or a smaller warmup"
    if controller.delta_max is None:
        return "no low-frequency difference could be measured in the warm-up: nothing was reused"
    if controller.delta_max == 0:
        return "the warm-up's predictions did not differ, so that alpha had no scale: nothing was reused"
    if controller.smallest is None:
        return "after the warm-up no low-frequency difference could be measured: nothing was reused"
    reached = (
        f"every low-frequency difference reached the threshold (smallest {controller.smallest:.3g}, threshold "
        f"{controller.threshold:.3g})"
    )
    advice = "nothing was reused" if has_scale_advice else "for more reuse choose turbo or raise alpha"
    return f"{reached}: {advice}"
