"""The unconditional prediction of reused calls, for samplers that read it."""

from typing import Any

import torch

_KEY = "sampler_post_cfg_function"
_OF_A_CALL = ("denoised", "uncond_denoised", "cond_denoised", "input", "sigma", "model_options")


class UnconditionalFeed:
    """Gets the unconditional denoised latent of computed calls, and passes that of reused calls to the sampler.

    The *_cfg_pp samplers read it in a post-cfg function of their own, which ComfyUI calls only when the call is
    computed.
    """

    def __init__(self) -> None:
        self._seen: torch.Tensor | None = None  # unconditional denoised latent of the call being computed
        self._others: dict[str, Any] = {}  # arguments of a post-cfg function other than the tensors of a call

    def watching(self, model_options: dict) -> dict:
        """A copy of the model options with one more post-cfg function, which gets the unconditional latent."""

        def see(args: dict) -> torch.Tensor:
            self._seen = args["uncond_denoised"]
            self._others = {name: value for name, value in args.items() if name not in _OF_A_CALL}
            return args["denoised"]

        return {**model_options, _KEY: [*model_options.get(_KEY, ()), see]}

    def take(self) -> torch.Tensor | None:
        """The unconditional denoised latent of the call just computed; None if the guider computed none."""
        seen, self._seen = self._seen, None
        return seen

    def feed(
        self,
        functions: list,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict,
        denoised: torch.Tensor,
        uncond: torch.Tensor | None,
    ) -> None:
        """Call the sampler's functions for a reused call.

        functions: from `functions_of_sampler`. x: the noised latent. timestep: its noise level, (B,).
        denoised, uncond: in x's shape.
        Raises KeyError if a function reads something that a reused call does not have.
        """
        arguments = {
            **self._others,
            "denoised": denoised,
            "uncond_denoised": uncond,
            "input": x,
            "sigma": timestep,
            "model_options": model_options,
        }
        for function in functions:
            function(arguments)


def functions_of_sampler(model_options: dict, guider: Any) -> list:
    """The post-cfg functions that the sampler has added to those of the guider's model."""
    return model_options.get(_KEY, [])[len(guider.model_options.get(_KEY, ())) :]
