"""Uniform skipping: a fixed share of the calls is computed at even distances, the rest is reused."""

import math

from benchmarks.variants import replace_correction
from precisecache_core.lfcache.reuse import REUSES


def uniform_pattern(calls, share, warmup=3):
    """Which calls are computed: the first `warmup`, then a `share` of the rest, evenly spread.

    Returns a list of bools. share 1/2 computes every second call after the warm-up.
    """
    return [
        i < warmup or math.floor((i - warmup + 1) * share + 1e-9) > math.floor((i - warmup) * share + 1e-9)
        for i in range(calls)
    ]


def attach_uniform(patcher, computed, reuse, variant=None):
    """A clone of the patcher that computes the calls marked in `computed` and reuses otherwise.

    reuse: one of LFCache's reuse strategies, with its correction, so that only the decisions differ from LFCache's.
    variant: one of `benchmarks.variants`.
    """
    from comfy.patcher_extension import WrappersMP
    from PreciseCache.nodes.host.parametrization import parametrization_of
    from PreciseCache.precisecache_core.lfcache.config import LFCacheConfig
    from PreciseCache.precisecache_core.lfcache.predictions import Predictions

    patcher = patcher.clone()
    model = parametrization_of(patcher.model, patcher.get_model_object("model_sampling"))
    if REUSES[reuse].is_corrected:
        model = model.in_derivatives()
    state = {}

    def outer_sample(executor, noise, latent, sampler, sigmas, *args, **kwargs):
        kept = Predictions(LFCacheConfig(reuse=reuse), model.is_derivative, sigmas.tolist())
        if variant:
            replace_correction(kept, variant, sigmas.tolist())
        state.update(call=0, kept=kept)
        try:
            return executor(noise, latent, sampler, sigmas, *args, **kwargs)
        finally:
            state.clear()

    def predict_noise(executor, x, timestep, model_options=None, seed=None):
        sigma = timestep.reshape(-1)[0]
        index, kept = state["call"], state["kept"]
        state["call"] = index + 1
        if not computed[min(index, len(computed) - 1)]:
            return model.denoised(x, sigma, *kept.predict(x, sigma.item(), False))[0]
        denoised = executor(x, timestep, model_options, seed)
        prediction = model.prediction(x, sigma, denoised)
        (answer,) = kept.store(model.position(x, sigma), sigma.item(), prediction, None)
        return denoised if answer is prediction else model.denoised(x, sigma, answer)[0]

    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "uniform", outer_sample)
    patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "uniform", predict_noise)
    return patcher
