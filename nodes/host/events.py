"""What a sampler run tells the page and other websocket clients while it goes on (`event.schema.json`)."""

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
INTERVAL = 0.1  # seconds between two events, over all runs
PATIENCE = 1.0  # the last event of a run waits no longer than this
MAX_BYTES = 2048  # of one event as it goes over the wire
MAX_NODES, MAX_NAME = 16, 64  # so many node ids, names so long
MAX_WARNINGS, MAX_WARNING = 3, 200  # in the last event of a run

logger = logging.getLogger("precisecache")


@dataclass(frozen=True)
class Page:
    """Where the page shows a run; empty outside a server.

    server: ComfyUI's. prompt_id: of the prompt being executed. nodes: ids of the LFCache and BlockCache
    nodes on the model, the last attached at the end. stats: ids of the Cache Stats nodes that show it.
    """

    server: Any = None
    prompt_id: str = ""
    nodes: list[str] = field(default_factory=list)
    stats: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, cache_nodes: Sequence[str]) -> "Page":
        """The page of the prompt being executed. cache_nodes: as of the graph, the last attached at the end."""
        server = running_server()
        if server is None:
            return cls()
        try:
            prompt = Prompt.current()
            stats = prompt.stats_of(cache_nodes[-1]) if cache_nodes else []
            return cls(server, prompt.id, _short(prompt.in_page(cache_nodes)), _short(prompt.in_page(stats)))
        except Exception:  # sampling goes on without events
            logger.warning("PreciseCache: the page cannot be told of the calls", exc_info=True)
            return cls()


class Throttle:
    """Lets events through at most once in `interval` seconds."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.interval = interval
        self.clock = clock
        self._next_at = -math.inf

    def wait(self) -> float:
        """Seconds until the next event may go."""
        return max(0.0, self._next_at - self.clock())

    def take(self) -> None:
        """An event goes as soon as it may."""
        self._next_at = max(self._next_at, self.clock()) + self.interval


THROTTLE = Throttle(INTERVAL)


class CallFeed:
    """Events of one sampler run: its calls so far, none outside a server.

    throttle: over all runs that share it; all of this process by default.
    """

    def __init__(self, run: CachedRun, page: Page, throttle: Throttle | None = None) -> None:
        self.run = run
        self.page = page
        self.throttle = throttle or THROTTLE
        self.server = page.server  # None after a failure: then nothing more is told
        self.told = 0  # calls

    def tell(self, is_ended: bool = False) -> None:
        """Send what is new, if it is time. At the end it is sent too, then or a little later."""
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
            logger.warning("PreciseCache: the page cannot be told of the calls", exc_info=True)

    def _event(self, is_ended: bool) -> dict | None:
        """The event with as many of the calls not yet told as fit, the latest; None if not even none does.

        The last one has the run's warnings too, if there is room.
        """
        run, journal = self.run, self.run.journal
        decisions, lfds = journal.decisions, journal.lfds
        blocks = run.blockcache.tally if run.blockcache else None
        calls = len(decisions)
        data: dict[str, Any] = {
            "version": VERSION,
            "prompt_id": self.page.prompt_id,
            "run": run.id,
            "nodes": self.page.nodes,
            "stats": self.page.stats,
            "model": run.name[:MAX_NAME],
            "steps": run.steps,
            "calls": calls,
            "computed": decisions.count("C"),
            "reused": decisions.count("R"),
            "trials": journal.trials,
            "threshold": _rounded(run.lfcache.threshold),
            "cache_bytes": sum(journal.peak_bytes.values()),
            "blocks": blocks
            and {"block_calls": blocks.block_calls, "block_calls_skipped": blocks.block_calls_skipped},
            "warnings": [text[:MAX_WARNING] for text in journal.warnings[:MAX_WARNINGS]] if is_ended else [],
            "is_ended": is_ended,
        }
        first = self.told
        while True:
            data |= {"first": first, "decisions": decisions[first:], "lfd": [_rounded(v) for v in lfds[first:]]}
            if len(json.dumps({"type": EVENT, "data": data})) <= MAX_BYTES:
                self.told = calls
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
    """ComfyUI's server, or None where it is not one that runs us."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def _short(names: Sequence[str]) -> list[str]:
    return [name for name in names if len(name) <= MAX_NAME][:MAX_NODES]


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
