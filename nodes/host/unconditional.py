"""The unconditional prediction on reused calls, for the samplers that read it."""

from typing import Any

import torch

_KEY = "sampler_post_cfg_function"
_OF_A_CALL = ("denoised", "uncond_denoised", "cond_denoised", "input", "sigma", "model_options")


class UnconditionalFeed:
    """Sees the unconditional answer of computed calls, and hands a reused one to the sampler.

    The *_cfg_pp samplers take the unconditional denoised latent of every call from a post-cfg function of
    their own, which only a computed call would reach.
    """

    def __init__(self) -> None:
        self._seen: torch.Tensor | None = None  # the unconditional answer of the call being computed
        self._others: dict[str, Any] = {}  # what the host gives such a function besides the tensors of a call

    def watching(self, model_options: dict) -> dict:
        """A copy of the model options that also shows the unconditional answer to us."""

        def see(args: dict) -> torch.Tensor:
            self._seen = args["uncond_denoised"]
            self._others = {name: value for name, value in args.items() if name not in _OF_A_CALL}
            return args["denoised"]

        return {**model_options, _KEY: [*model_options.get(_KEY, ()), see]}

    def take(self) -> torch.Tensor | None:
        """The unconditional denoised answer of the call just computed, or None if the model gave none."""
        seen, self._seen = self._seen, None
        return seen

    def feed(self, functions: list, x: torch.Tensor, timestep: torch.Tensor, model_options: dict,
             denoised: torch.Tensor, uncond: torch.Tensor | None) -> None:
        """Call the sampler's functions for a reused call. Raises KeyError for what it does not have."""
        answer = {**self._others, "denoised": denoised, "uncond_denoised": uncond, "input": x,
                  "sigma": timestep, "model_options": model_options}
        for function in functions:
            function(answer)


def functions_of_sampler(model_options: dict, guider: Any) -> list:
    """The post-cfg functions that the sampler added to those of the guider's model."""
    return model_options.get(_KEY, [])[len(guider.model_options.get(_KEY, ())) :]
