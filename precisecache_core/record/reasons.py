"""Why a run reused nothing: the sentence that answers "is it working?"."""

from typing import Protocol


class Decisions(Protocol):
    """What is asked of the run's controller, as the run left it (see `lfcache.controller`)."""

    alpha: float
    warmup: int
    calls: int
    delta_max: float | None
    smallest: float | None

    @property
    def threshold(self) -> float | None: ...


def why_nothing_was_reused(decisions: str, controller: Decisions, has_scale_advice: bool = False) -> str | None:
    """One sentence with the remedy for a run that reused no call, or None if it reused one.

    decisions: per call "C" or "R".
    has_scale_advice: another warning already says how to get a better scale for alpha.
    Source: ours.
    """
    if "R" in decisions or not decisions:
        return None
    if controller.alpha == 0:
        return "alpha is 0: nothing is reused"
    if controller.calls == 0:
        return "no call lay between start_percent and end_percent: nothing was reused"
    if controller.calls <= controller.warmup:
        return f"all {controller.calls} calls that may be reused were warm-up: use more steps or a smaller warmup"
    if controller.delta_max is None:
        return "no low-frequency difference could be measured in the warm-up: nothing was reused"
    if controller.delta_max == 0:
        return "the warm-up's answers did not differ, so that there was no scale for alpha: nothing was reused"
    if controller.smallest is None:
        return "after the warm-up no low-frequency difference could be measured: nothing was reused"
    reached = (
        f"every low-frequency difference reached the threshold (smallest {controller.smallest:.3g}, threshold "
        f"{controller.threshold:.3g})"
    )
    advice = "nothing was reused" if has_scale_advice else "for more reuse choose turbo or raise alpha"
    return f"{reached}: {advice}"
