"""Where the residuals of skipped blocks are kept between calls (Eq. 6)."""

from collections.abc import Mapping, Sequence

import torch


class Residual:
    """What a range of neighbouring blocks adds to its streams, {name: tensor}.

    On `cpu` beside a GPU the tensors lie in pinned memory and are copied asynchronously:
    work queued later on the same stream waits for the copy, the program does not.
    """

    def __init__(self, cache_device: str) -> None:
        self.cache_device = cache_device
        self.streams: dict[str, torch.Tensor] = {}

    def add(self, added: Mapping[str, torch.Tensor]) -> None:
        """Add one block's residual, {name: tensor}; the first one is handed over."""
        for name, tensor in added.items():
            if name in self.streams:
                self.streams[name].add_(tensor)
            else:
                self.streams[name] = tensor

    def settle(self) -> None:
        """All blocks of the range were added: move it to where it is kept."""
        if self.cache_device == "cpu":
            self.streams = {name: _to_host(t) for name, t in self.streams.items()}

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.streams.values())

    def stream(self, name: str) -> torch.Tensor:
        """What is added to one stream."""
        return self.streams[name]

    def fits(self, streams: Mapping[str, torch.Tensor], rows: slice) -> bool:
        """True if it can be added to these rows of the streams."""
        return all(name in streams and (t.shape, t.dtype) == (streams[name][rows].shape, streams[name].dtype)
                   for name, t in self.streams.items())


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    is_cuda = tensor.device.type == "cuda"
    try:
        held = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=is_cuda)
    except RuntimeError:  # the system pins no more memory: slower, but kept
        held, is_cuda = torch.empty(tensor.shape, dtype=tensor.dtype), False
    # not every device may copy while the program goes on (MPS must not)
    return held.copy_(tensor, non_blocking=is_cuda)


def empty_pinned_pool() -> None:
    """Give pinned memory that is free back to the system; torch would keep it for later."""
    empty = getattr(torch._C, "_host_emptyCache", None)
    if empty is not None and torch.cuda.is_available():
        empty()


def add_residuals(
    streams: Mapping[str, torch.Tensor], residuals: Sequence[Residual], rows: Sequence[slice]
) -> dict[str, torch.Tensor]:
    """{name: stream + residual}, new tensors, for the streams that the blocks return.

    residuals: one Residual per branch; rows: the slice of the batch that is its.
    """
    result = {}
    for name in residuals[0].streams:
        stream = streams[name]
        out = torch.empty_like(stream)
        for residual, part in zip(residuals, rows):
            held = residual.stream(name).to(
                stream.device, non_blocking=stream.device.type == "cuda")
            torch.add(stream[part], held, out=out[part])
        result[name] = out
    return result
