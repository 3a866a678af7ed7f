"""How much of a model's weights is not on its device, so that every pass has to copy it there."""

import logging
from typing import Any

logger = logging.getLogger("precisecache")


def streamed_share(patcher: Any) -> float | None:
    """The share of the weights, in [0, 1], that every pass copies to the model's device.

    Source: ours; from the host's own counts, which are the same in ComfyUI 0.3.64 and 0.33.
    patcher: the model's ModelPatcher. Ask during the run and after a computed call: earlier the weights are
        not loaded yet, with dynamic offload not before the first pass.
    Returns None if the patcher does not say, as one of another pack may not.
    """
    try:
        if patcher.load_device == patcher.offload_device:  # a CPU, or a GPU that keeps every model
            return 0.0
        # with dynamic offload the weights have an address range on the GPU, and pages of it are loaded when a
        # pass needs them; `model_size` counts them as they are in the file, before they are cast
        pages = getattr(patcher.model, "dynamic_vbars", {}).get(patcher.load_device)
        if pages is not None:
            size, loaded = pages.offset, pages.loaded_size()
        else:
            size, loaded = patcher.model_size(), patcher.loaded_size()
        return max(0.0, 1 - loaded / size) if size > 0 else 0.0
    except Exception:
        logger.debug("PreciseCache: the patcher does not say how much of the model is loaded", exc_info=True)
        return None
