"""PreciseCache: step and block caching for video diffusion in ComfyUI.

This file is what ComfyUI loads. Outside ComfyUI it imports without error and offers
nothing; the method itself is the package `precisecache_core`.
"""

WEB_DIRECTORY = "./web"

try:
    from .nodes.extension import comfy_entrypoint
except ModuleNotFoundError as error:
    # not inside ComfyUI; anything else that is missing is a fault and must show
    if (error.name or "").split(".")[0] not in ("comfy", "comfy_api", "comfy_execution"):
        raise
    __all__ = ["WEB_DIRECTORY"]
else:
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
