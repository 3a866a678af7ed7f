"""The processes that sample one latent together, and how they tell each other something."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

# One message; every exchange has this size on every rank, so that two ranks at different points still understand
# each other.
MESSAGE_BYTES = 4096
# Seconds that a rank waits for the others. Loading a model takes one rank minutes longer than another.
PATIENCE = 300.0


class GroupLost(Exception):
    """The other ranks do not answer; the message says what happened."""


class Group:
    """One process that samples alone, and the base of every group.

    size: number of processes (ranks). rank: the number of this one, from 0.
    """

    size = 1
    rank = 0

    def exchange(self, message: dict) -> list[dict]:
        """Tell every rank something that JSON can hold; returns what each rank told, in the order of the ranks.

        Every rank has to call it equally often. Raises GroupLost if the others do not answer.
        """
        return [message]

    def post(self, message: dict) -> None:
        """As `exchange`, without waiting for the others and without their answers."""


ALONE = Group()


class TorchGroup(Group):
    """The ranks of a torch.distributed process group.

    group: the process group; None for all processes. One with the backend gloo exchanges in the memory of the host, so
    that the device is not read. device: where messages are; "cuda" for a group with the backend nccl.
    patience: seconds to wait for the others; after that, every further exchange raises GroupLost at once.
    Ours: one all-gather of MESSAGE_BYTES bytes per rank is the only exchange there is.
    """

    def __init__(self, group: Any = None, patience: float = PATIENCE, device: torch.device | str = "cpu") -> None:
        import torch.distributed as dist

        self.size = dist.get_world_size(group)
        self.rank = dist.get_rank(group)
        self.patience = timedelta(seconds=patience)
        self._group = group
        self._device = device
        self._posted: Any = None  # what was posted last, if the others may not have received it yet
        self._lost: str | None = None

    def exchange(self, message: dict) -> list[dict]:
        if self._lost is not None:
            raise GroupLost(self._lost)
        try:
            self._wait_for_posted()
            rows, work = self._gather(message)
            work.wait(self.patience)
            return [_read(row) for row in rows]
        except RuntimeError as error:  # a time-out, or a closed connection
            self._lost = f"the other GPUs do not answer ({str(error).strip().splitlines()[0][:120]})"
            raise GroupLost(self._lost) from error

    def post(self, message: dict) -> None:
        if self._lost is not None:
            return
        try:
            self._wait_for_posted()
            self._posted = self._gather(message)[1]
        except RuntimeError as error:
            self._lost = f"the other GPUs do not answer ({error})"

    def _wait_for_posted(self) -> None:
        if self._posted is not None:
            self._posted.wait(self.patience)
            self._posted = None

    def _gather(self, message: dict) -> tuple[Sequence[torch.Tensor], Any]:
        """Begin to exchange; returns the tensors that will hold the messages, and what to wait for."""
        import torch.distributed as dist

        mine = _written(message).to(self._device)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        return rows, dist.all_gather(rows, mine, group=self._group, async_op=True)


def _written(message: dict) -> torch.Tensor:
    """The message as (MESSAGE_BYTES,) uint8; one that is too long becomes an empty one, which no rank agrees to."""
    text = json.dumps(message).encode()
    if len(text) > MESSAGE_BYTES:
        text = b"{}"
    return torch.frombuffer(bytearray(text.ljust(MESSAGE_BYTES)), dtype=torch.uint8)


def _read(row: torch.Tensor) -> dict:
    return json.loads(row.cpu().numpy().tobytes())
