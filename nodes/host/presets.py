"""Which settings of LFCache a preset decides by itself, for the page to show."""

from typing import Any

from ...precisecache_core.lfcache.config import PRESET_STEPS, PRESETS, LFCacheConfig

OFF = "off"  # a preset of the node: no LFCache
BY_ALPHA = ("alpha", "warmup")  # without effect where the steps are planned


def in_force() -> dict[str, dict[str, str | None]]:
    """For each preset of the node the settings that it ignores, with the value in force instead, as text.

    None where nothing is in force instead: the setting plays no part there.
    """
    return {OFF: dict.fromkeys([*_UNLIKELY, "cache_device"]), **{preset: _decided(preset) for preset in PRESETS}}


def _decided(preset: str) -> dict[str, str | None]:
    config = LFCacheConfig.from_preset(preset, **_UNLIKELY)
    found: dict[str, str | None] = {}
    for name, value in _UNLIKELY.items():
        actual = getattr(config, name)
        if config.share is not None and name in BY_ALPHA:
            found[name] = None
        elif actual != value:
            found[name] = None if actual is None else str(actual)
    if preset in PRESET_STEPS:
        steps, share = PRESET_STEPS[preset]
        found["share"] = f"{steps:g} + {100 * share:g} %"
    return found


# valid settings that no preset has, so that a preset's own value shows
_UNLIKELY: dict[str, Any] = {
    "alpha": 0.123,
    "share": 0.123,
    "warmup": 17,
    "start_percent": 0.123,
    "end_percent": 0.321,
    "trial": "snr_matched",
    "reference": "trial",
    "reuse": "taylor",
    "factor_t": 7,
    "factor_hw": 7,
    "cutoff": 0.123,
}
