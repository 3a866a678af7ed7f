"""Which exceptions mean that memory ran out: every device and allocator raises its own."""

import torch

_TEXTS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out on CUDA, on MPS or on the CPU.

    CUDA may report it late, as a plain RuntimeError of a later operation; so the text is searched too.
    """
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def raise_unless_out_of_memory(error: Exception) -> None:
    """Raise an exception again, unless it means that memory ran out."""
    if not is_out_of_memory(error):
        raise error
