"""The journal of one sampler run: what happened, call by call."""

import logging
from dataclasses import dataclass

import torch

from .speedup import Speedup, estimate
from .stopwatch import Stopwatch

logger = logging.getLogger("precisecache")

COMPUTED, REUSED = "C", "R"


class Reason:
    """Why a call was computed or reused; one letter each, for the report.

    WARMUP: calls that are computed in any case. PLANNED, UNPLANNED: the plan said so, or said reuse but the call had to
    be computed. THRESHOLD, BELOW: the accumulated LFD reached the threshold, or did not. NO_LFD: there was no LFD or no
    prediction to reuse. WINDOW: outside of start_percent to end_percent. ASIDE: LFCache stands aside.
    """

    WARMUP, PLANNED, UNPLANNED, THRESHOLD, BELOW = "w", "p", "u", "t", "b"
    NO_LFD, WINDOW, ASIDE = "n", "o", "a"


@dataclass(slots=True)
class CallRecord:
    """One call.

    decision: COMPUTED or REUSED. sigma: its noise level; still a tensor with one element if nothing has
    read it from the device. lfd: its LFD to the last computed call; None if none was measured. correction: how far
    x was displaced when the call was computed, RMS in the latent's units, a tensor with one element; None if
    nothing was to be corrected. reason: one of Reason. is_whole: whether no block was skipped.
    """

    decision: str
    sigma: float | torch.Tensor
    lfd: float | None
    correction: torch.Tensor | None = None
    reason: str = Reason.NO_LFD
    is_whole: bool = True


class Journal:
    """Calls, warnings, times and memory peaks of one run. It records decisions and makes none.

    device: where the model runs, for the stopwatch.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.calls: list[CallRecord] = []
        self.trials = 0
        self.blocks_skipped = 0
        self._blocks_before = 0  # skipped until the end of the last call
        self.warnings: list[str] = []
        self.is_alone = True  # False with another step cache: calls that it answers say nothing about a whole one
        self.stopwatch = Stopwatch(device)
        self.peak_bytes = {"lfcache": 0, "blockcache": 0}

    def warn(self, text: str) -> None:
        """Add a warning to the report and the log, unless it is there already."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("PreciseCache: %s", text)

    def add(self, call: CallRecord) -> None:
        """Record a call that has ended."""
        call.is_whole = self.blocks_skipped == self._blocks_before
        self._blocks_before = self.blocks_skipped
        self.calls.append(call)

    def speedup(self, is_over: bool = False) -> Speedup | None:
        """How much faster the run is than without the caches, an estimate; None if there is nothing to estimate from.

        is_over: the run has ended, so that its whole time counts and waiting for the device does no harm; before, only
        calls that the device has finished count.
        """
        if not self.stopwatch.is_exact or not self.is_alone:
            return None
        read = self.stopwatch.finished if self.stopwatch.is_cuda and not is_over else self.stopwatch.each
        calls, computed = read("call"), read("compute")
        ended = self.calls[: len(calls)]
        is_whole = [call.is_whole for call in ended if call.decision == COMPUTED]
        sampling = self.stopwatch.seconds("sampling") if is_over else sum(calls)
        return estimate(sampling, calls, computed[: len(is_whole)], is_whole)

    def note_bytes(self, feature: str, nbytes: int) -> None:
        """Record how many bytes a feature ("lfcache" or "blockcache") keeps now; the peak goes to the report."""
        self.peak_bytes[feature] = max(self.peak_bytes[feature], nbytes)

    @property
    def decisions(self) -> str:
        """One letter per call: C computed, R reused."""
        return "".join(call.decision for call in self.calls)

    @property
    def reasons(self) -> str:
        """One letter per call, see Reason."""
        return "".join(call.reason for call in self.calls)

    @property
    def sigmas(self) -> list[float]:
        """The noise level of each call; reads those from the device that nothing has read yet."""
        return [float(call.sigma) for call in self.calls]

    @property
    def corrections(self) -> list[float | None]:
        """How far x was displaced at each call, RMS; None where nothing was corrected. Reads the device."""
        found = [call.correction for call in self.calls if call.correction is not None]
        read = iter(torch.stack(found).tolist() if found else [])
        return [None if call.correction is None else next(read) for call in self.calls]

    @property
    def lfds(self) -> list[float | None]:
        """The LFD of each call; None where none was measured."""
        return [call.lfd for call in self.calls]
