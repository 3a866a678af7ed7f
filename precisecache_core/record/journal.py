"""The journal of one sampler run: what happened, call by call."""

import logging
from dataclasses import dataclass

import torch

from .stopwatch import Stopwatch

logger = logging.getLogger("precisecache")

COMPUTED, REUSED = "C", "R"


@dataclass(slots=True)
class CallRecord:
    """One call: what was decided, its noise level, and its LFD (None where none was measured).

    sigma: a float, or a tensor with one element where nothing needed to read it.
    """

    decision: str
    sigma: float | torch.Tensor
    lfd: float | None


class Journal:
    """Calls, warnings, times and memory peaks of one run. It only grows; nothing in it decides.

    device: where the model runs, for the stopwatch.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.calls: list[CallRecord] = []
        self.trials = 0
        self.warnings: list[str] = []
        self.stopwatch = Stopwatch(device)
        self.peak_bytes = {"lfcache": 0, "blockcache": 0}

    def warn(self, text: str) -> None:
        """Say something once: in the log and in the report."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("PreciseCache: %s", text)

    def note_bytes(self, cache: str, count: int) -> None:
        """A cache ("lfcache" or "blockcache") holds this many bytes now."""
        self.peak_bytes[cache] = max(self.peak_bytes[cache], count)

    @property
    def decisions(self) -> str:
        """One letter per call: C computed, R reused."""
        return "".join(call.decision for call in self.calls)

    @property
    def sigmas(self) -> list[float]:
        """The noise level of each call; reads the device where nothing has read it before."""
        return [float(call.sigma) for call in self.calls]

    @property
    def lfds(self) -> list[float | None]:
        """The LFD of each call."""
        return [call.lfd for call in self.calls]
