"""The settings of both caches that a preset stands for, where there are no nodes."""

import dataclasses
from typing import Any

from ..blockcache.config import BlockCacheConfig
from ..checks import require
from ..lfcache.config import PRESETS, LFCacheConfig

OFF = "off"
FLASH = "flash"
ALL = (OFF, *PRESETS)
# the presets that take each of these; the others set it themselves or do without it
TAKEN_BY = {"alpha": ("custom", "paper"), "share": ("budget",), "extra_steps": ("budget",)}
FURTHER = [field.name for field in dataclasses.fields(LFCacheConfig) if field.name not in ("alpha", "share")]
OF_PAPER = ("cache_device",)  # all that `paper` leaves open beside alpha


def configs_of(
    preset: str, alpha: float | None, share: float | None, blockcache: BlockCacheConfig | None, settings: dict[str, Any]
) -> tuple[LFCacheConfig | None, BlockCacheConfig | None]:
    """(settings of LFCache, or None for `off`; settings of BlockCache, or None).

    preset: one of LFCacheConfig's, or `off`, which computes every step. alpha: for `custom` and `paper`; None for
    LFCacheConfig's own. share: for `budget`; None for its own. settings: further fields of LFCacheConfig. blockcache:
    None for those of the preset: flash has some.
    Raises ValueError naming setting, value and remedy, also for a setting that the preset does not use.
    """
    require(preset in ALL, "preset", f"one of {', '.join(ALL)}", preset, "Use base for quality, turbo for speed.")
    for name in settings:
        require(name in FURTHER, "a further setting", f"one of {', '.join(FURTHER)}", name, "Look for a misspelling.")
    require(
        blockcache is None or isinstance(blockcache, BlockCacheConfig),
        "blockcache",
        "a BlockCacheConfig or None",
        blockcache,
        "Use BlockCacheConfig(cache_rate=0.4), from precisecache_core, or leave it out.",
    )
    given = {name: value for name, value in (("alpha", alpha), ("share", share)) if value is not None} | settings
    for name, value in given.items():
        taken_by = TAKEN_BY.get(name, [p for p in PRESETS if p != "paper" or name in OF_PAPER])
        remedy = f"Leave it out, or choose {' or '.join(taken_by)}."
        require(preset in taken_by, name, f"left out with the preset {preset}", value, remedy)
    lfcache = None if preset == OFF else LFCacheConfig.from_preset(preset, alpha, share, **settings)
    if preset == FLASH and blockcache is None:
        blockcache = BlockCacheConfig()
    return lfcache, blockcache
