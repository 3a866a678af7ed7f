"""One line for each phase of a long command: its name, a bar, and its time. Standard library only."""

import shutil
import sys
import threading
import time

BAR = 20  # characters
REDRAW_SECONDS = 0.1  # at most this often
TICK_SECONDS = 0.5  # the time on the line goes on while nothing else happens


def duration(seconds):
    """Seconds as text: `3.4 s`, `74 s` or `2 min 14 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02} s"


def bar(share):
    """A share from 0 to 1 as a bar; beyond these it is cut."""
    share = min(1.0, max(0.0, share))
    full = int(share * BAR)
    return f"[{'#' * full}{'-' * (BAR - full)}] {share:4.0%}"


class Phase:
    """Context manager: the line of one phase.

    On a terminal the line is rewritten as the phase goes on. Elsewhere there is a line at its start and one at its
    end. Both end with what it took.

    measure: asked at each redraw for the share that is done, for phases that call neither `advance` nor `step`.
    """

    def __init__(self, name, prefix="", out=None, clock=time.monotonic, measure=None):
        self.name = prefix + name
        self.result = None  # the end of the last line, instead of the phase's time
        self._out = out or sys.stdout
        self._clock = clock
        self._measure = measure
        self._share = None
        self._detail = ""
        self._length = 0  # of what the terminal's line shows
        self._drawn = None  # when
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self):
        self._start = self._clock()
        if self._out.isatty():
            self._draw()
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        else:
            print(f"{self.name} ...", file=self._out, flush=True)
        return self

    def __exit__(self, kind, *_):
        self._ended.set()
        took = duration(self._clock() - self._start)
        if kind is None:
            end = took if self.result is None else self.result
        else:
            end = f"{'failed' if issubclass(kind, Exception) else 'stopped'} after {took}"
        text = f"{self.name}: {end}"
        if self._out.isatty():
            self._ticker.join()
            self._rewrite(text)
            text = ""
        print(text, file=self._out, flush=True)

    def advance(self, share=None, detail=""):
        """The phase has got this far. share: from 0 to 1, None if unknown. detail: what it is at."""
        self._share, self._detail = share, detail
        is_due = self._drawn is None or self._clock() - self._drawn >= REDRAW_SECONDS
        if self._out.isatty() and is_due:
            self._draw()

    def step(self, number, total):
        """Step `number` of `total` is done."""
        self.advance(number / total, f"step {number} of {total}")

    def _tick(self):
        while not self._ended.wait(TICK_SECONDS):
            self._draw()

    def _draw(self):
        with self._lock:
            if self._measure:
                self._share = self._measure()
            self._drawn = self._clock()
            parts = [
                self.name,
                *([] if self._share is None else [bar(self._share)]),
                duration(self._drawn - self._start),
            ]
            # a line that reaches the terminal's edge would break, and \r would not return to its start
            self._rewrite("  ".join([*parts, self._detail]).rstrip()[: shutil.get_terminal_size().columns - 1])

    def _rewrite(self, text):
        self._out.write("\r" + text.ljust(self._length))
        self._out.flush()
        self._length = len(text)
