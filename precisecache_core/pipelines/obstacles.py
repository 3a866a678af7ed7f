"""Why a run computes every step, makes no trials, or forgets what it has computed."""

from collections.abc import Sequence
from typing import Any

from ..cached_run import CachedRun
from .adapters import Adapter
from .hooked import hook_names
from .offloading import is_streamed

# how diffusers names the hooks of its own caches, in part: `apply_first_block_cache` and the like set no flag
CACHES = ("faster_cache", "fbc_", "mag_cache", "pyramid_attention_broadcast", "sea_cache", "taylorseer")


def look_for_obstacles(adapter: Adapter, run: CachedRun) -> None:
    """Let the caches of a new run stand aside, or do without trials, where its pipeline asks for it."""
    lfcache, modules = run.lfcache, adapter.transformers()
    other = _other_cache(modules)
    for cache in caches_of(run):
        if not cache.is_standing_aside and other is not None:
            cache.stand_aside(f"a cache of diffusers is on ({other})")
    if not lfcache.is_standing_aside and (reason := adapter.schedule.obstacle()):
        lfcache.stand_aside(reason)
    if not lfcache.is_standing_aside and (reason := adapter.obstacle()):
        lfcache.do_without_trials(reason)
    if not lfcache.is_standing_aside and not lfcache.config.try_every_call and is_streamed(modules):
        lfcache.do_without_trials("each call copies the weights to the GPU, which makes trials slow")


def caches_of(run: CachedRun) -> list[Any]:
    """The caches of a run."""
    return [cache for cache in (run.lfcache, run.blockcache) if cache is not None]


def forget(run: CachedRun) -> None:
    """What was computed does not hold any more: the next step is computed, with all of its blocks."""
    if not run.lfcache.is_standing_aside:
        run.lfcache.stage.forget_predictions()
    if run.blockcache is not None:
        run.blockcache.residuals = {}


def _other_cache(modules: Sequence[Any]) -> str | None:
    """What diffusers calls a cache of its own that is on these modules, or None."""
    if any(getattr(module, "is_cache_enabled", False) for module in modules):
        return "enable_cache"
    return next((name for name in hook_names(modules) if any(part in name for part in CACHES)), None)
