"""Measures time on a device without making the program wait for the device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Measures named spans of time: CUDA events on a GPU, the system clock elsewhere."""

    def __init__(self, device: torch.device | str) -> None:
        kind = torch.device(device).type
        self.is_cuda = kind == "cuda"
        self.is_exact = kind in ("cuda", "cpu")  # other devices work on while the clock is read
        self.spans: dict[str, list[tuple[Any, Any]]] = {}

    def mark(self) -> Any:
        """The present moment, as the start of a span."""
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, name: str, start: Any) -> None:
        """Add the span from `start` (from `mark`) until now."""
        self.spans.setdefault(name, []).append((start, self.mark()))

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A context whose time is added to the span, even after an error."""
        start = self.mark()
        try:
            yield
        finally:
            self.add(name, start)

    def seconds(self, name: str) -> float:
        """Total time of the spans of a name in seconds; as `each`."""
        return sum(self.each(name))

    def each(self, name: str) -> list[float]:
        """Seconds of each span of a name, in order, none for an unknown name; waits for the device if it still runs."""
        spans = self.spans.get(name, [])
        if not self.is_cuda:
            return [end - start for start, end in spans]
        if spans:
            spans[-1][1].synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in spans]

    def finished(self, name: str) -> list[float]:
        """Seconds of the spans of a name that a GPU has finished, in order; never waits for it.

        None on other devices: the clock does not see when they finish.
        """
        if not self.is_cuda:
            return []
        return [
            start.elapsed_time(end) / 1000 for start, end in self.spans.get(name, []) if start.query() and end.query()
        ]
