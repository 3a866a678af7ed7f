"""What the ranks of one sampler run agree on, so that all of them do the same."""

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakMethod

from .group import ALONE, MESSAGE_BYTES, Group, GroupLost

# the points of a run at which ranks exchange something
ASIDE, DECIDE, TRIAL, SCALE, PLAN, PIECE, KEPT = "aside", "decide", "trial", "scale", "plan", "piece", "kept"
BLOCKS, PASS, PASSED, END = "blocks", "pass", "passed", "end"

_PIECE_BYTES = MESSAGE_BYTES // 2  # of data in one message


class Answer(NamedTuple):
    """What the ranks told at a point.

    is_able: whether every rank can. values: what each rank told, in the order of the ranks.
    """

    is_able: bool
    values: list[Any]


class Agreement:
    """The ranks of one sampler run; make a new one for every run.

    Source: ours. Where a model is computed by several processes, its own exchanges (attention, weights) hang or mix
    up if one process computes what another skips. So a rank skips something only after every rank has said, in one and
    the same exchange, that it can. Whatever else happens to a rank changes nothing until it has been told: a wish (to
    stand aside, to make no trials) is adopted by all ranks in the exchange in which they hear of it. A rank that
    fails says so instead of what it would have said. If ranks find each other at different points, or lose each
    other, all of them adopt every wish that there is, and compute.

    group: the Group. Alone, a rank agrees with itself at once, and nothing is sent.
    """

    def __init__(self, group: Group = ALONE) -> None:
        self.group = group
        self.exchanges = 0  # number of exchanges of this run
        self.is_open = group.size > 1  # whether the ranks still have to agree
        self._adopters: dict[str, WeakMethod] = {}  # weak, because the runs have the agreement
        self._wishes: dict[str, str] = {}
        self._has_ended = False

    def on_wish(self, subject: str, adopt: Callable[[str], None]) -> None:
        """What to do once the ranks have heard of a wish: adopt(reason), a method."""
        self._adopters[subject] = WeakMethod(adopt)

    def wish(self, subject: str, reason: str) -> None:
        """Wish something for all ranks; alone, it is adopted at once."""
        if self.is_open:
            self._wishes.setdefault(subject, reason)
        else:
            self._adopt_one(subject, reason)

    def wishes(self, subject: str) -> bool:
        """Whether this rank has a wish that has not been adopted yet."""
        return subject in self._wishes

    def settle(self, point: str, is_able: bool = True, values: Any = None) -> Answer:
        """Exchange at a point of the run. Whoever stands at ASIDE may meet others at any point.

        is_able: whether this rank can do what the point is about. values: what else it tells, for JSON.
        """
        if not self.is_open:
            return Answer(is_able, [values])
        message = {"point": point, "able": is_able, "wishes": self._wishes, "values": values}
        try:
            told = self.group.exchange(message)
        except GroupLost as lost:
            return self._close(str(lost), values)
        self.exchanges += 1
        points = {other.get("point") for other in told}
        if len(points - {ASIDE}) > 1 or points & {END, None}:
            return self._close("the GPUs are not at the same point of the run", values)
        self._adopt(told)
        if ASIDE in points:
            return Answer(False, [values])
        return Answer(all(other["able"] for other in told), [other["values"] for other in told])

    def largest(self, value: float | None) -> float | None:
        """The largest of the ranks' values (see `largest_of`)."""
        return largest_of(self.settle(SCALE, values=value).values)

    def common(self, data: bytes | None) -> bytes | None:
        """The same data for all ranks: that of rank 0. None if a rank has none."""
        digest = None if data is None else hashlib.sha256(data).hexdigest()
        answer = self.settle(PLAN, data is not None, (digest, None if data is None else len(data)))
        if not answer.is_able or data is None:
            return None
        if all(told == answer.values[0] for told in answer.values):
            return data
        whole = b""
        while len(whole) < answer.values[0][1]:
            piece = base64.b64encode(data[len(whole) : len(whole) + _PIECE_BYTES]).decode()
            told = self.settle(PIECE, values=piece if self.group.rank == 0 else None)
            if not told.is_able:
                return None
            whole += base64.b64decode(told.values[0])
        return whole

    def end(self) -> None:
        """This rank's run is over, for whatever reason. It does not wait for the others."""
        if self.is_open and not self._has_ended:
            self.group.post({"point": END, "able": False, "wishes": {}, "values": None})
        self._has_ended, self.is_open = True, False

    def _adopt(self, told: Sequence[dict]) -> None:
        """Adopt every wish that a rank told, in the same order on all ranks."""
        for subject in self._adopters:
            rank, reason = next(
                ((rank, other["wishes"][subject]) for rank, other in enumerate(told) if subject in other["wishes"]),
                (0, None),
            )
            if reason is not None:
                self._wishes.pop(subject, None)
                self._adopt_one(subject, reason if rank == self.group.rank else f"on GPU {rank}: {reason}")

    def _adopt_one(self, subject: str, reason: str) -> None:
        if (adopt := self._adopters[subject]()) is not None:
            adopt(reason)

    def _close(self, reason: str, values: Any) -> Answer:
        """The ranks can no longer agree: from now on each computes everything."""
        self.is_open = False
        for subject in self._adopters:
            self._adopt_one(subject, reason)
        self._wishes.clear()
        return Answer(False, [values])


def largest_of(values: Sequence[float | None]) -> float | None:
    """The largest of several values; infinity if one is not a number, None if one is None."""
    if len(values) == 1 or any(value is None for value in values):
        return values[0] if len(values) == 1 else None
    return max(math.inf if value is None or math.isnan(value) else value for value in values)
