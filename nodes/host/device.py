"""Runs a node's own long computation: on which device, with progress and interruption."""

import logging
from collections.abc import Callable
from typing import TypeVar

import comfy.model_management
import comfy.utils
import torch

from ...precisecache_core.memory import is_out_of_memory

T = TypeVar("T")

logger = logging.getLogger("precisecache")


def on_model_device(work: Callable[[torch.device, Callable[[], None]], T], parts: int) -> T:
    """Call work(device, each_part) with the device of the models, or with the CPU if that has no memory left.

    each_part: `work` calls it before each of its `parts` parts. It moves the node's progress bar, and raises
        ComfyUI's exception if the user has interrupted the run.
    Returns what `work` returns. Its errors pass through, except for a lack of memory on a GPU.
    """
    device = comfy.model_management.get_torch_device()
    try:
        return work(device, _progress(parts))
    except Exception as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
        logger.info("PreciseCache: no memory left on %s, using the CPU", device)
    return work(torch.device("cpu"), _progress(parts))


def _progress(parts: int) -> Callable[[], None]:
    bar = comfy.utils.ProgressBar(parts)

    def each_part() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    return each_part
