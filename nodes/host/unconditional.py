"""The unconditional prediction on reused calls, for the samplers that read it."""

import torch

from ...precisecache_core.reuse import PredictionCache

_KEY = "sampler_post_cfg_function"


class UnconditionalFeed:
    """Keeps the unconditional prediction beside the guided one, and hands it to the sampler.

    The *_cfg_pp samplers take the unconditional denoised latent of every call from a post-cfg
    function of their own, which only a computed call would reach.
    """

    def __init__(self, config):
        self.cache = PredictionCache(config.reuse, config.cache_device)
        self._seen = None

    def watching(self, model_options):
        """A copy of the model options that also shows the unconditional answer to us."""
        def see(args):
            self._seen = args["uncond_denoised"]
            return args["denoised"]

        return {**model_options, _KEY: [*model_options.get(_KEY, ()), see]}

    def follow(self, x, timestep, model_options, functions, run, denoised):
        """After a call of `run`, an LFCacheRun: keep what was computed, or feed `functions` on reuse."""
        if run.is_standing_aside:
            return
        sigma, level = timestep.reshape(-1)[0], run.sigmas[-1]
        a, b = run.affine(sigma)
        if run.decisions[-1] == "R":
            answer = {"denoised": denoised, "uncond_denoised": a * x + b * self.cache.predict(x, level), "input": x,
                      "sigma": timestep, "model_options": model_options}
            for function in functions:
                function(answer)
        elif self._seen is None:
            run.stand_aside("this sampler reads an unconditional prediction that the model does not give")
        elif level > 0:
            try:
                self.cache.store(x, level, ((self._seen - a * x) / b).to(x.dtype))
            except torch.cuda.OutOfMemoryError:
                run.stand_aside("no memory for an unconditional prediction")
        self._seen = None


def functions_of_sampler(model_options, guider):
    """The post-cfg functions that the sampler added to those of the guider's model."""
    return model_options.get(_KEY, [])[len(guider.model_options.get(_KEY, ())):]
