"""The unconditional prediction on reused calls, for the samplers that read it."""

_KEY = "sampler_post_cfg_function"
_OF_A_CALL = ("denoised", "uncond_denoised", "cond_denoised", "input", "sigma", "model_options")


class UnconditionalFeed:
    """Keeps the unconditional prediction beside the guided one, and hands it to the sampler.

    The *_cfg_pp samplers take the unconditional denoised latent of every call from a post-cfg
    function of their own, which only a computed call would reach.
    """

    def __init__(self):
        self._seen = None  # the unconditional answer of the call being computed
        self._others = {}  # what the host gives such a function besides the tensors of a call

    def watching(self, model_options):
        """A copy of the model options that also shows the unconditional answer to us."""
        def see(args):
            self._seen = args["uncond_denoised"]
            self._others = {name: value for name, value in args.items() if name not in _OF_A_CALL}
            return args["denoised"]

        return {**model_options, _KEY: [*model_options.get(_KEY, ()), see]}

    def follow(self, x, timestep, model_options, functions, run, denoised):
        """After a call of `run`, an LFCacheRun: keep what was computed, or feed `functions` on reuse.

        False if they cannot be fed: then the call has to be computed.
        """
        seen, self._seen = self._seen, None
        if run.decisions[-1] == "R":
            answer = {**self._others, "denoised": denoised, "uncond_denoised": run.companion_denoised, "input": x,
                      "sigma": timestep, "model_options": model_options}
            try:
                for function in functions:
                    function(answer)
            except KeyError as error:
                run.stand_aside(f"this sampler reads {error} of a call, which a reused one does not have")
                run.revoke()
                return False
        elif seen is not None:
            run.store_companion(x, timestep, seen)
        elif not run.is_standing_aside:
            run.stand_aside("this sampler reads an unconditional prediction that the model does not give")
        return True


def functions_of_sampler(model_options, guider):
    """The post-cfg functions that the sampler added to those of the guider's model."""
    return model_options.get(_KEY, [])[len(guider.model_options.get(_KEY, ())):]
