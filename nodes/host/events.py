"""What a sampler run tells the page and other websocket clients while it goes on."""

import json
import logging
import math
import sys
import time
import uuid
from contextlib import contextmanager

from .prompt import Prompt

EVENT = "precisecache.calls"
INTERVAL = 0.1  # seconds between two events, over all runs
PATIENCE = 1.0  # the last event of a run waits no longer than this
MAX_BYTES = 2048  # of one event as it goes over the wire
MAX_NODES, MAX_NAME = 16, 64  # so many node ids, names so long
MAX_WARNINGS, MAX_WARNING = 3, 200  # in the last event of a run

logger = logging.getLogger("precisecache")

_next_at = 0.0  # no event before this time


class CallFeed:
    """Events of one sampler run: its calls so far, at most ten a second, none outside a server.

    cache_nodes: ids of the LFCache and BlockCache nodes on the model, the last attached at the end.
    """

    def __init__(self, cache_nodes, model_name, steps):
        self.run = uuid.uuid4().hex[:12]
        self.nodes = []
        self.seconds = 0.0  # spent in `timed`, for the benchmark of the overhead
        self.told = 0
        self.server = running_server()
        if self.server is None:
            return
        with self.guarded():
            self._find_nodes(cache_nodes, model_name, steps)

    @contextmanager
    def timed(self):
        """Context whose time counts as spent on events and records."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    @contextmanager
    def guarded(self):
        """Context, timed, after whose failure nothing more is told: sampling goes on without events."""
        with self.timed():
            try:
                yield
            except Exception:
                self.server = None
                logger.warning("PreciseCache: the page cannot be told of the calls", exc_info=True)

    def _find_nodes(self, cache_nodes, model_name, steps):
        prompt = Prompt.current()
        self.nodes = _short(prompt.in_page(cache_nodes))
        self.head = {
            "version": 2, "prompt_id": prompt.id, "run": self.run, "nodes": self.nodes,
            "stats": _short(prompt.in_page(prompt.stats_of(cache_nodes[-1]) if cache_nodes else [])),
            "model": model_name[:MAX_NAME], "steps": steps}

    def tell(self, steps, blocks, peak_bytes, is_ended=False):
        """Send what is new, if it is time. At the end it is sent too, then or a little later.

        steps, blocks: the run's LFCacheRun and its BlockCacheRun or None. peak_bytes: the most that
        both have held. Reads no device.
        """
        if self.server is not None:
            with self.guarded():
                self._tell(steps, blocks, peak_bytes, is_ended)

    def _tell(self, steps, blocks, peak_bytes, is_ended):
        global _next_at
        now = time.perf_counter()
        wait = max(0.0, _next_at - now)
        if wait > (PATIENCE if is_ended else 0):
            return
        data = self._event(steps, blocks, peak_bytes, is_ended)
        if data is not None:
            _next_at = now + wait + INTERVAL
            self._send(data, wait)

    def _event(self, steps, blocks, peak_bytes, is_ended):
        """The event with as many of the calls not yet told as fit, the latest; None if not even none does.

        The last one has the run's warnings too, if there is room.
        """
        warnings = steps.warnings + (blocks.warnings if blocks else []) if is_ended else []
        calls = len(steps.decisions)
        data = {
            **self.head, "calls": calls, "computed": steps.decisions.count("C"), "reused": steps.decisions.count("R"),
            "trials": steps.trials, "threshold": _rounded(steps.controller.threshold), "cache_bytes": peak_bytes,
            "blocks": blocks and {"block_calls": blocks.block_calls,
                                  "block_calls_skipped": blocks.block_calls_skipped},
            "warnings": [text[:MAX_WARNING] for text in warnings[:MAX_WARNINGS]], "is_ended": is_ended}
        first = self.told
        while True:
            data |= {"first": first, "decisions": "".join(steps.decisions[first:]),
                     "lfd": [_rounded(v) for v in steps.lfds[first:]]}
            if len(json.dumps({"type": EVENT, "data": data})) <= MAX_BYTES:
                self.told = calls
                return data
            if first < calls:
                first = calls - (calls - first) // 2
            elif data["warnings"]:
                data["warnings"] = []
            else:
                return None

    def _send(self, data, wait):
        sid = self.server.client_id
        if wait:
            loop = self.server.loop
            loop.call_soon_threadsafe(loop.call_later, wait, self.server.send_sync, EVENT, data, sid)
        else:
            self.server.send_sync(EVENT, data, sid)


def running_server():
    """ComfyUI's server, or None where it is not one that runs us."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def _short(names):
    return [name for name in names if len(name) <= MAX_NAME][:MAX_NODES]


def _rounded(value):
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
