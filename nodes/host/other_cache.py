"""ComfyUI's EasyCache or LazyCache on the sampled model: its name, and how many calls it reuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# keys in transformer_options: ComfyUI's two and Raylight's EasyCache; Raylight's TeaCache
KEYS = {"easycache": "EasyCache", "teacache": "TeaCache"}


class OtherCache:
    """Watches the step cache of one run; nothing in it is changed.

    LazyCache in front of our nodes answers a call before they see it, so the calls that it reused outside of `call` are
    counted too.
    """

    def __init__(self, holder: Any, name: str) -> None:
        self.name = name if name != "EasyCache" else str(getattr(holder, "name", name))
        self.threshold = getattr(holder, "reuse_threshold", None)
        self._reused: int | None = None  # by all calls; None until the cache has said so
        self._inside = 0  # by the calls that came through `call`

    @classmethod
    def of(cls, guider: Any) -> "OtherCache | None":
        """That of a guider's model, or None."""
        found = _holder_of(guider)
        return None if found is None else cls(*found)

    @contextmanager
    def call(self, guider: Any) -> Iterator[None]:
        """A context for one call of the run."""
        before = self.look(guider)
        yield
        after = self.look(guider)
        if before is not None and after is not None:
            self._inside += max(after - before, 0)  # it may start anew within a run

    def look(self, guider: Any) -> int | None:
        """Read how many calls it has reused; None if it does not say. It forgets the number when its run ends."""
        count = getattr((_holder_of(guider) or (None,))[0], "total_steps_skipped", None)
        if not isinstance(count, int):
            return None
        self._reused = max(count, self._reused or 0)
        return count

    def entry(self, calls: int) -> dict:
        """For the report (`other_cache` in its schema). calls: that came through `call`."""
        outside = 0 if self._reused is None else max(self._reused - self._inside, 0)
        reused = None if self._reused is None else min(self._reused, calls + outside)
        return {"name": self.name, "threshold": self.threshold, "calls": calls + outside, "reused": reused}

    @property
    def label(self) -> str:
        """Its name and threshold: "EasyCache 0.2"."""
        return self.name if self.threshold is None else f"{self.name} {self.threshold:g}"


def _holder_of(guider: Any) -> tuple[Any, str] | None:
    """(the other cache's object, its name), or None."""
    options = guider.model_options.get("transformer_options", {})
    return next(((options[key], name) for key, name in KEYS.items() if options.get(key) is not None), None)
