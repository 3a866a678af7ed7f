"""Why a run reused nothing: the sentence that answers "is it working?"."""

import math


def why_nothing_was_reused(decisions, lfds, controller):
    """One sentence with the remedy for a run that reused no call, or None if it reused one.

    decisions, lfds: per call "C" or "R", and the LFD or None.
    controller: the run's LFCacheController as the run left it.
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
    finite = [lfd for lfd in lfds if lfd is not None and math.isfinite(lfd)]
    after = finite[max(0, controller.warmup - 1):]  # a warm-up has one difference less than calls
    if not after:
        return "after the warm-up no low-frequency difference could be measured: nothing was reused"
    return (f"every low-frequency difference reached the threshold (smallest {min(after):.3g}, threshold "
            f"{controller.threshold:.3g}): for more reuse choose turbo or raise alpha")
