"""The residuals of skipped blocks, kept between calls and added in place of the blocks (Eq. 6)."""

from collections.abc import Mapping, Sequence

import torch


class Residual:
    """What a range of neighbouring blocks adds to its streams, {name: tensor (B, tokens, dim)}.

    With cache_device `cpu` and a CUDA model, the tensors are in pinned memory and are copied
    asynchronously: later work on the same CUDA stream waits for the copy, the program does not.
    """

    def __init__(self, cache_device: str) -> None:
        self.cache_device = cache_device
        self.streams: dict[str, torch.Tensor] = {}

    def add(self, added: Mapping[str, torch.Tensor]) -> None:
        """Add one block's residual, {name: tensor}; the caller must not use the tensors afterwards."""
        for name, tensor in added.items():
            if name in self.streams:
                self.streams[name].add_(tensor)
            else:
                self.streams[name] = tensor

    def settle(self) -> None:
        """Move the sum to cache_device; called once all blocks of the range were added."""
        if self.cache_device == "cpu":
            self.streams = {name: _to_host(t) for name, t in self.streams.items()}

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        return sum(t.nbytes for t in self.streams.values())

    def stream(self, name: str) -> torch.Tensor:
        """The residual of one stream."""
        return self.streams[name]

    def fits(self, streams: Mapping[str, torch.Tensor], rows: slice) -> bool:
        """Whether it can be added to these rows of the streams (equal shapes and dtypes)."""
        return all(
            name in streams and (t.shape, t.dtype) == (streams[name][rows].shape, streams[name].dtype)
            for name, t in self.streams.items()
        )


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    is_cuda = tensor.device.type == "cuda"
    try:
        kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=is_cuda)
    except RuntimeError:  # no more memory can be pinned: pageable memory is slower, but works
        kept, is_cuda = torch.empty(tensor.shape, dtype=tensor.dtype), False
    # an asynchronous copy is safe on CUDA only (on MPS it is not)
    return kept.copy_(tensor, non_blocking=is_cuda)


def empty_pinned_pool() -> None:
    """Return unused pinned memory to the system; torch would keep it for later."""
    empty = getattr(torch._C, "_host_emptyCache", None)
    if empty is not None and torch.cuda.is_available():
        empty()


def add_residuals(
    streams: Mapping[str, torch.Tensor], residuals: Sequence[Residual], rows: Sequence[slice]
) -> dict[str, torch.Tensor]:
    """The streams after the skipped blocks, {name: stream + residual}, as new tensors.

    streams: {name: tensor (B, tokens, dim)}, not written to. residuals: one Residual per branch.
    rows: the slice of the batch that each branch takes; together they cover the batch.
    Returns only the streams that the residuals have.
    """
    result = {}
    for name in residuals[0].streams:
        stream = streams[name]
        out = torch.empty_like(stream)
        for residual, part in zip(residuals, rows):
            added = residual.stream(name).to(stream.device, non_blocking=stream.device.type == "cuda")
            torch.add(stream[part], added, out=out[part])
        result[name] = out
    return result
