"""Uniform skipping: a fixed share of the calls is computed at even distances, the rest is reused."""

import math

from precisecache_core.lfcache.reuse import REUSES


def uniform_pattern(calls, share, warmup=3):
    """Which calls are computed: the first `warmup`, then a `share` of the rest, evenly spread.

    Returns a list of bools. share 1/2 computes every second call after the warm-up.
    """
    return [
        i < warmup or math.floor((i - warmup + 1) * share + 1e-9) > math.floor((i - warmup) * share + 1e-9)
        for i in range(calls)
    ]


def attach_uniform(patcher, computed, reuse):
    """A clone of the patcher that computes the calls marked in `computed` and reuses otherwise.

    reuse: one of LFCache's reuse strategies, so that only the decisions differ from LFCache's.
    """
    from comfy.patcher_extension import WrappersMP
    from PreciseCache.nodes.host.parametrization import affine_of

    patcher = patcher.clone()
    affine = affine_of(patcher.get_model_object("model_sampling"))
    state = {}

    def outer_sample(executor, *args, **kwargs):
        state.update(call=0, cache=REUSES[reuse]())
        try:
            return executor(*args, **kwargs)
        finally:
            state.clear()

    def predict_noise(executor, x, timestep, model_options=None, seed=None):
        sigma = timestep.reshape(-1)[0]
        a, b = affine(sigma)
        index, cache = state["call"], state["cache"]
        state["call"] = index + 1
        if not computed[min(index, len(computed) - 1)]:
            return a * x + b * cache.predict(x, sigma.item())
        denoised = executor(x, timestep, model_options, seed)
        cache.store(x, sigma.item(), (denoised - a * x) / b)
        return denoised

    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "uniform", outer_sample)
    patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "uniform", predict_noise)
    return patcher
