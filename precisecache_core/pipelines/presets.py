"""The settings of both caches that a preset stands for, where there are no nodes."""

from typing import Any

from ..blockcache.config import BlockCacheConfig
from ..checks import require
from ..lfcache.config import PRESETS, LFCacheConfig

OFF = "off"
FLASH = "flash"


def configs_of(
    preset: str, alpha: float, share: float, blockcache: BlockCacheConfig | None, settings: dict[str, Any]
) -> tuple[LFCacheConfig | None, BlockCacheConfig | None]:
    """(settings of LFCache, or None for `off`; settings of BlockCache, or None).

    preset: one of LFCacheConfig's, or `off`, which computes every step. alpha, share, settings: see
    `LFCacheConfig.from_preset`. blockcache: None for those of the preset: flash has some.
    Raises ValueError naming setting, value and remedy.
    """
    names = (OFF, *PRESETS)
    require(preset in names, "preset", f"one of {', '.join(names)}", preset, "Use base for quality, turbo for speed.")
    lfcache = None if preset == OFF else LFCacheConfig.from_preset(preset, alpha, share, **settings)
    if preset == FLASH and blockcache is None:
        blockcache = BlockCacheConfig()
    return lfcache, blockcache
