"""Why a run reused nothing: the report's answer to "is it working?"."""

from collections.abc import Sequence
from typing import Protocol

POOR, ENOUGH_PAIRS = 0.5, 6  # of the trials' agreement; fewer pairs may agree or not by chance
SMALLEST_SIDE = 24  # of a latent: in the trial of a smaller one too few pixels are left to rank steps by


class Factors(Protocol):
    """The part of LFCache's configuration that is read here."""

    @property
    def factor_t(self) -> int: ...

    @property
    def factor_hw(self) -> int: ...


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


def why_trials_are_poor(agreement: float | None, latent_shape: Sequence[int], factors: Factors) -> str | None:
    """One sentence for a run whose trials agreed poorly with its computed calls; None for any other run.

    Source: ours.
    agreement: of at least ENOUGH_PAIRS pairs, or None. latent_shape: (B, C, …, H, W).
    """
    if agreement is None or agreement >= POOR or min(latent_shape[-2:], default=0) < SMALLEST_SIDE:
        return None
    remedy = "set factor_t to 1" if factors.factor_t > 1 else f"set factor_hw to {factors.factor_hw // 2}"
    return f"the trials agree poorly with the computed steps ({agreement:.2f}, at best 1): {remedy}"
