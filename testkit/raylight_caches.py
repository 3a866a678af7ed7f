"""The same caches on Raylight's workers and on the host alone, for tests that compare both.

caches: the nodes in their order, ((kind, inputs), …), kind "lfcache" or "blockcache".
"""

import json

import testkit.pack  # noqa: F401
from testkit.model_files import load_plainly, sample_plainly

KEY = "precisecache"  # of our wrappers on a model, and of our value in RAY_ACTORS

_INPUTS = {"lfcache": dict(preset="base", alpha=0.5, share=0.4), "blockcache": dict(cache_rate=0.4, reuse_steps=2)}
_RAY_INPUTS = {"lfcache": {}, "blockcache": dict(mode="on")}


def cached_plainly(model, caches, **how):
    """(latent, report entry) of the host alone; how: as for `sample_plainly`."""
    from PreciseCache.nodes.blockcache import PreciseCacheBlockCache
    from PreciseCache.nodes.lfcache import PreciseCacheLFCache
    from PreciseCache.nodes.stats import PreciseCacheStats

    nodes = {"lfcache": PreciseCacheLFCache, "blockcache": PreciseCacheBlockCache}
    patcher = load_plainly(model)
    for kind, inputs in caches:
        patcher = nodes[kind].execute(patcher, **_INPUTS[kind] | inputs).args[0]
    latent = sample_plainly(patcher, model, **how)
    return latent, _last(PreciseCacheStats.execute(patcher, {"samples": latent}))


def with_caches(bench, actors, caches):
    """RAY_ACTORS with the caches, from our nodes."""
    from PreciseCache.nodes.raylight import PreciseCacheBlockCacheRay, PreciseCacheLFCacheRay

    nodes = {"lfcache": PreciseCacheLFCacheRay, "blockcache": PreciseCacheBlockCacheRay}
    for kind, inputs in caches:
        (actors,) = bench.run(nodes[kind], ray_actors=actors, **_INPUTS[kind] | _RAY_INPUTS[kind] | inputs)
    return actors


def cached_on_ray(bench, actors, model, caches, **how):
    """(latent, report entry) of Raylight's workers; how: as for `RayBench.sample`."""
    actors = with_caches(bench, actors, caches)
    latent = bench.sample(actors, model, **how)
    return latent, reports(bench, actors)[-1]


def reports(bench, actors):
    """The report entries that Cache Stats (Ray) shows, all of them."""
    from PreciseCache.nodes.raylight import PreciseCacheStatsRay

    return json.loads(bench.run(PreciseCacheStatsRay, ray_actors=actors, samples={"samples": None})[1])["runs"]


def runs_of_every_rank(bench, actors, model, caches, **how):
    """(latent, [report entry of each rank]) of one run; there must have been one with our nodes before."""
    from PreciseCache.nodes.host.worker_side import settings_of

    plan = with_caches(bench, actors, caches)[KEY]
    assert all(bench.on_every_model(_worker_side(), "begin", settings_of(plan.attachment), plan.layout))
    latent = bench.sample(actors, model, **how)
    return latent, [told["runs"][-1] for told in bench.on_every_model(_worker_side(), "end")]


def _worker_side():
    def call(model, name, *arguments):
        import importlib

        return getattr(importlib.import_module("precisecache_in_worker.nodes.host.worker_side"), name)(
            model, *arguments
        )

    return call


def left_on_workers(bench):
    """What is left of us on every rank: [(number of wrappers on the model, number of kept reports)]."""

    def look(model, key):
        import sys

        reports = sys.modules.get("precisecache_in_worker.nodes.host.reports")
        options = model.model_options.get("transformer_options", {})
        wrappers = sum(len(by_key.get(key, ())) for by_key in model.wrappers.values())
        return wrappers + (key in options), len(reports._runs) if reports else 0

    return bench.on_every_model(look, KEY)


def _last(output):
    return json.loads(output.args[1])["runs"][-1]
