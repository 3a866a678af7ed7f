"""Reuse `corrected`: the trend of the last two computed calls, put right by the next one."""

import torch

from .fitted import Fitted


class Corrected(Fitted):
    """Like Fitted, for the derivative d = (x - denoised) / sigma, and a Corrector puts it right at every computed call.

    Source: ours. d is the prediction itself for flow and eps models (see `Parametrization.in_derivatives`).
    """

    name = "corrected"

    is_corrected = True

    @property
    def nodes(self) -> list[tuple[float, torch.Tensor]]:
        calls = ((self.previous_sigma, self.previous), (self.sigma, self.current))
        return [(sigma, tensor) for sigma, tensor in calls if sigma is not None and tensor is not None]
