"""The list of nodes this pack gives to ComfyUI."""

from comfy_api.latest import ComfyExtension

from .blockcache import PreciseCacheBlockCache
from .compare import PreciseCacheCompare
from .lfcache import PreciseCacheLFCache
from .stats import PreciseCacheStats
from .tiny_model import PreciseCacheTinyModel


class PreciseCacheExtension(ComfyExtension):
    async def get_node_list(self) -> list[type]:
        """The node classes, in the order of the README."""
        return [PreciseCacheLFCache, PreciseCacheBlockCache, PreciseCacheStats, PreciseCacheCompare,
                PreciseCacheTinyModel]


async def comfy_entrypoint() -> PreciseCacheExtension:
    """What ComfyUI calls to get the nodes."""
    return PreciseCacheExtension()
