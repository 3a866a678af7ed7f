"""Our own arithmetic beside the caller's torch.autocast: exact, and without gradients."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


class Precision:
    """How the caller computes on a device when this is made: with autocast or without.

    Under autocast a matrix product is silently half precision, and linear algebra fails on what comes out of it.
    Where torch cannot say (before 2.4, or on a device without autocast), the caller has none.
    """

    def __init__(self, device: torch.device) -> None:
        self.kind = device.type
        self.dtype: torch.dtype | None = None
        self.is_autocast = False
        try:
            self.dtype = torch.get_autocast_dtype(self.kind)
            self.is_autocast = torch.is_autocast_enabled(self.kind)
        except (AttributeError, TypeError, RuntimeError):
            pass

    @contextmanager
    def ours(self) -> Iterator[None]:
        """A context for our own arithmetic."""
        with torch.no_grad(), torch.autocast(self.kind, enabled=False) if self.is_autocast else nullcontext():
            yield

    def callers(self) -> AbstractContextManager:
        """A context inside of `ours` in which the model computes as in the caller's own calls."""
        return torch.autocast(self.kind, dtype=self.dtype) if self.is_autocast else nullcontext()
