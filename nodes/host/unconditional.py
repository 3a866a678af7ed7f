"""The unconditional prediction of every call, for samplers that read it."""

from typing import Any

import torch

_KEY = "sampler_post_cfg_function"
_OF_A_CALL = ("denoised", "uncond_denoised", "cond_denoised", "input", "sigma", "model_options")


class UnconditionalFeed:
    """Gets the unconditional denoised latent of computed calls, and passes every call's to the sampler.

    The *_cfg_pp samplers read it in a post-cfg function of their own, which ComfyUI calls only when the call is
    computed, and before it is corrected. So these functions are held back while a call is computed, and called once
    when its answer is known.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Any] | None = None  # arguments of a post-cfg function in the call being computed
        self._others: dict[str, Any] = {}  # those of them that are not the tensors of a call

    def holding_back(self, model_options: dict, functions: list) -> dict:
        """A copy of the model options with a post-cfg function that sees the unconditional latent.

        functions: from `functions_of_sampler`; left out of the copy.
        """

        def see(args: dict) -> torch.Tensor:
            self._seen = args
            self._others = {name: value for name, value in args.items() if name not in _OF_A_CALL}
            return args["denoised"]

        every = model_options.get(_KEY, [])
        return {**model_options, _KEY: [*every[: len(every) - len(functions)], see]}

    @property
    def uncond(self) -> torch.Tensor | None:
        """The unconditional denoised latent of the call just computed; None if the guider computed none."""
        return None if self._seen is None else self._seen["uncond_denoised"]

    def feed_computed(
        self, functions: list, model_options: dict, denoised: torch.Tensor, uncond: torch.Tensor | None
    ) -> torch.Tensor:
        """Call the sampler's functions for the call just computed; returns the sampler's denoised latent.

        model_options: as the sampler gave them. denoised, uncond: of the call, corrected.
        """
        seen, self._seen = self._seen, None
        if seen is None:  # the guider calls no such functions
            return denoised
        return _fed(functions, {**seen, "model_options": model_options, "uncond_denoised": uncond}, denoised)

    def feed_reused(
        self,
        functions: list,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict,
        denoised: torch.Tensor,
        uncond: torch.Tensor | None,
    ) -> torch.Tensor:
        """Call the sampler's functions for a reused call; returns the sampler's denoised latent.

        functions: from `functions_of_sampler`. x: the noised latent. timestep: its noise level, (B,).
        denoised, uncond: in x's shape.
        Raises KeyError if a function reads something that a reused call does not have.
        """
        arguments = {
            **self._others,
            "uncond_denoised": uncond,
            "input": x,
            "sigma": timestep,
            "model_options": model_options,
        }
        return _fed(functions, arguments, denoised)


def _fed(functions: list, arguments: dict, denoised: torch.Tensor) -> torch.Tensor:
    """What the functions make of `denoised`, one after another, as in ComfyUI."""
    for function in functions:
        denoised = function({**arguments, "denoised": denoised})
    return denoised


def functions_of_sampler(model_options: dict, guider: Any) -> list:
    """The post-cfg functions that the sampler has added to those of the guider's model."""
    return model_options.get(_KEY, [])[len(guider.model_options.get(_KEY, ())) :]
