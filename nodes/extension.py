"""The list of nodes that this pack adds to ComfyUI."""

from comfy_api.latest import ComfyExtension

from .blockcache import PreciseCacheBlockCache
from .compare import PreciseCacheCompare
from .lfcache import PreciseCacheLFCache
from .raylight import PreciseCacheBlockCacheRay, PreciseCacheLFCacheRay, PreciseCacheStatsRay
from .stats import PreciseCacheStats
from .tiny_model import PreciseCacheTinyModel


class PreciseCacheExtension(ComfyExtension):
    async def get_node_list(self) -> list[type]:
        """The node classes, in the order of docs/NODES.md."""
        return [
            PreciseCacheLFCache,
            PreciseCacheBlockCache,
            PreciseCacheStats,
            PreciseCacheCompare,
            PreciseCacheTinyModel,
            PreciseCacheLFCacheRay,
            PreciseCacheBlockCacheRay,
            PreciseCacheStatsRay,
        ]


async def comfy_entrypoint() -> PreciseCacheExtension:
    """The pack's entry: ComfyUI calls it to get the nodes."""
    return PreciseCacheExtension()
