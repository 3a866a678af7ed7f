"""Events that a sampler run sends to the page and other websocket clients (`event.schema.json`)."""

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...precisecache_core.cached_run import CachedRun
from .prompt import Prompt

EVENT = "precisecache.calls"
VERSION = 2
INTERVAL = 0.1  # minimum seconds between two events of all runs together
PATIENCE = 1.0  # maximum seconds that the last event of a run waits; then it is dropped
MAX_BYTES = 2048  # size of one event as JSON
MAX_NODES, MAX_NAME = 16, 64  # number of node ids; characters of an id or name
MAX_WARNINGS, MAX_WARNING = 3, 200  # number of warnings in the last event of a run; characters of each

logger = logging.getLogger("precisecache")


@dataclass(frozen=True)
class Page:
    """Where the page shows a run; empty outside a server.

    server: ComfyUI's PromptServer. prompt_id: of the prompt being executed. nodes: page ids of the LFCache
    and BlockCache nodes on the model, the last attached at the end. stats: page ids of the Cache Stats nodes
    that show the run. sampler: page id of the sampler's node.
    """

    server: Any = None
    prompt_id: str = ""
    nodes: list[str] = field(default_factory=list)
    stats: list[str] = field(default_factory=list)
    sampler: str = ""

    @classmethod
    def of(cls, cache_nodes: Sequence[str]) -> "Page":
        """The Page of the prompt being executed.

        cache_nodes: graph ids of the cache nodes on the model, the last attached at the end.
        """
        server = running_server()
        if server is None:
            return cls()
        try:
            prompt = Prompt.current()
            stats = prompt.stats_of(cache_nodes[-1]) if cache_nodes else []
            nodes, shown = _short(prompt.in_page(cache_nodes)), _short(prompt.in_page(stats))
            return cls(server, prompt.id, nodes, shown, "".join(_short(prompt.in_page([prompt.node_id]))))
        except Exception:  # sampling goes on without events
            logger.warning("PreciseCache: cannot send the calls of this run to the page", exc_info=True)
            return cls()


class Throttle:
    """Limits events to one in `interval` seconds. clock: returns the time in seconds."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.interval = interval
        self.clock = clock
        self._next_at = -math.inf

    def wait(self) -> float:
        """Seconds until the next event may be sent."""
        return max(0.0, self._next_at - self.clock())

    def take(self) -> None:
        """Reserve the next time at which an event may be sent."""
        self._next_at = max(self._next_at, self.clock()) + self.interval


THROTTLE = Throttle(INTERVAL)


class CallFeed:
    """Sends the calls of one sampler run as events; sends nothing outside a server.

    throttle: shared by all runs of this process by default.
    """

    def __init__(self, run: CachedRun, page: Page, throttle: Throttle | None = None) -> None:
        self.run = run
        self.page = page
        self.throttle = throttle or THROTTLE
        self.server = page.server  # None after a failure: then nothing more is sent
        self.sent = 0  # number of calls sent

    def tell(self, is_ended: bool = False) -> None:
        """Send the new calls if the throttle allows it; with `is_ended`, send them a little later if not."""
        if self.server is None:
            return
        try:
            wait = self.throttle.wait()
            if wait > (PATIENCE if is_ended else 0):
                return
            data = self._event(is_ended)
            if data is not None:
                self.throttle.take()
                self._send(data, wait)
        except Exception:  # sampling goes on without events
            self.server = None
            logger.warning("PreciseCache: cannot send the calls of this run to the page", exc_info=True)

    def _event(self, is_ended: bool) -> dict | None:
        """The data of the next event; None if it does not fit even without calls.

        It has the calls that were not sent yet. If they do not all fit, it has only the latest of them. The
        last event of a run has the warnings too, if there is room.
        """
        run, journal = self.run, self.run.journal
        decisions, reasons, lfds = journal.decisions, journal.reasons, journal.lfds
        blocks = run.blockcache.tally if run.blockcache else None
        plan = run.lfcache.planner.entry() if run.lfcache.planner else None
        speedup = journal.speedup(is_ended)
        calls = len(decisions)
        data: dict[str, Any] = {
            "version": VERSION,
            "prompt_id": self.page.prompt_id,
            "run": run.id,
            "nodes": self.page.nodes,
            "stats": self.page.stats,
            "sampler": self.page.sampler,
            "model": run.name[:MAX_NAME],
            "steps": run.steps,
            "calls": calls,
            "computed": decisions.count("C"),
            "reused": decisions.count("R"),
            "trials": journal.trials,
            "threshold": _rounded(run.lfcache.threshold),
            "plan": plan and {"budget": plan["budget"], "steps": plan["steps"]},
            "cache_bytes": sum(journal.peak_bytes.values()),
            "speedup": _rounded(speedup.ratio if speedup else None),
            "saved_seconds": _rounded(speedup.saved if speedup else None),
            "blocks": blocks and {"block_calls": blocks.block_calls, "block_calls_skipped": blocks.block_calls_skipped},
            "standing_aside": run.standing_aside,
            "warnings": [text[:MAX_WARNING] for text in journal.warnings[:MAX_WARNINGS]] if is_ended else [],
            "expectation": run.expectation and run.expectation[:MAX_WARNING],
            "is_ended": is_ended,
        }
        first = self.sent
        while True:
            data |= {"first": first, "decisions": decisions[first:], "reasons": reasons[first:]}
            data["lfd"] = [_rounded(v) for v in lfds[first:]]
            if len(json.dumps({"type": EVENT, "data": data})) <= MAX_BYTES:
                self.sent = calls
                return data
            if first < calls:
                first = calls - (calls - first) // 2
            elif data["warnings"]:
                data["warnings"] = []
            else:
                return None

    def _send(self, data: dict, wait: float) -> None:
        sid = self.server.client_id
        if wait:
            loop = self.server.loop
            loop.call_soon_threadsafe(loop.call_later, wait, self.server.send_sync, EVENT, data, sid)
        else:
            self.server.send_sync(EVENT, data, sid)


def running_server() -> Any:
    """ComfyUI's PromptServer, or None if this program is not one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def _short(names: Sequence[str]) -> list[str]:
    return [name for name in names if len(name) <= MAX_NAME][:MAX_NODES]


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
