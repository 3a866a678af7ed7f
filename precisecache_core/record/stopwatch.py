"""Time spent on a device, measured without making the host wait for it."""

import time
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up named spans: events on a GPU, the clock elsewhere. Read it once, at the end."""

    def __init__(self, device):
        self.is_cuda = torch.device(device).type == "cuda"
        self.spans = {}

    def _mark(self):
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def span(self, name):
        start = self._mark()
        try:
            yield
        finally:
            self.spans.setdefault(name, []).append((start, self._mark()))

    def seconds(self, name):
        """Total of a span in seconds; waits for the device if it still runs."""
        spans = self.spans.get(name, ())
        if not self.is_cuda:
            return sum(end - start for start, end in spans)
        if spans:
            spans[-1][1].synchronize()
        return sum(start.elapsed_time(end) for start, end in spans) / 1000
