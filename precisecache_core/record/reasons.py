"""Why a run reused nothing: the report's answer to "is it working?"."""

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
