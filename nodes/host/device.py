"""Where short computations of ours run."""

import logging

import comfy.model_management

from ...precisecache_core.memory import is_out_of_memory

logger = logging.getLogger("precisecache")


def on_fastest_device(work):
    """work(device) on the device that models run on, or on the CPU where that has no memory left."""
    device = comfy.model_management.get_torch_device()
    try:
        return work(device)
    except Exception as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
        logger.info("PreciseCache: no memory left on %s, using the CPU", device)
    return work("cpu")
