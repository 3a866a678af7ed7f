"""Whether trials are worth their time: where weights are streamed, a trial takes far more than its share of MACs."""

from ..record.journal import Journal

# A trial may take this share of a computed call if the model's weights are streamed. On the bundled model a
# run without trials is within half a dB at the same cost, but at the same alpha it computes more calls: by the
# counts in benchmarks/README.md it takes as long as one whose trials take 4 to 7 % of a call with euler, 16 to
# 25 % with uni_pc.
LIMIT_STREAMED = 0.05
# ... and this share if nobody says that they are: other programs move weights too, and do not tell. It is
# above the MACs of a trial with the factors 1 and 2 on a model that fits, about 16 %.
LIMIT = 0.25
# Seconds; a shorter call is mostly overhead, and its trials cost little time whatever their share.
SHORTEST_CALL = 0.5
# Share of the weights: the host's two counts differ by what no pass needs.
NEGLIGIBLE = 0.01


def share_of(trials: list[float], calls: list[float]) -> float | None:
    """The time of one trial over that of one computed call.

    trials, calls: seconds of each, in order. The first of each is left out: it loads and compiles the model.
    Of the others the fastest counts, because whatever disturbs a measurement makes it longer.
    Returns None if there are fewer than two of either.
    """
    trial, call = min(trials[1:], default=0.0), min(calls[1:], default=0.0)
    return trial / call if trial > 0 and call > 0 else None


class TrialCost:
    """The time that trials take in one run, and the objection to them if it is too long.

    Source: ours. A model that does not fit the GPU is streamed over the bus at every pass, and a trial is a
    pass. There is an objection if, by the GPU's own events, a computed call takes at least SHORTEST_CALL
    seconds and a trial more than LIMIT_STREAMED of it (LIMIT if `streamed` is not known or is negligible).
    On other devices there is none: a CPU streams nothing, and the clock does not see when the others finish.

    journal: the run's; its stopwatch has the spans `trial` and `compute`.
    streamed: the share of the model's weights, in [0, 1], that every pass copies to the GPU; None if it is
        not known. The host sets it.
    """

    def __init__(self, journal: Journal) -> None:
        self.streamed: float | None = None
        self._journal = journal
        self._is_judged = False

    @property
    def is_streamed(self) -> bool:
        """Whether every pass copies a part of the weights that counts."""
        return self.streamed is not None and self.streamed > NEGLIGIBLE

    @property
    def streamed_text(self) -> str:
        """That part in words."""
        return f"{100 * (self.streamed or 0.0):.0f} % of the model's weights do not fit the GPU"

    @property
    def share(self) -> float | None:
        """`share_of` the whole run, on any device; waits for the device, so ask after the run."""
        stopwatch = self._journal.stopwatch
        return share_of(stopwatch.each("trial"), stopwatch.each("compute"))

    def objection(self) -> str | None:
        """Why trials take too much time, or None; never waits for the device.

        It is judged once, as soon as the times are known; asked again, the answer is None.
        """
        if self._is_judged:
            return None
        trials, calls = (self._journal.stopwatch.finished(name) for name in ("trial", "compute"))
        share = share_of(trials, calls)
        if share is None:
            return None
        self._is_judged = True
        if min(calls[1:]) < SHORTEST_CALL or share <= (LIMIT_STREAMED if self.is_streamed else LIMIT):
            return None
        cause = f", because {self.streamed_text}" if self.is_streamed else ""
        return f"a trial takes {100 * share:.0f} % of a call{cause or ' on this machine'}"
