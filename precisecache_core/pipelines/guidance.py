"""How a pipeline mixes the guidance branches, found from what it gives to its scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

# The guided prediction may differ from the branches' weighted sum by this share of its norm: in bfloat16 rounding
# makes up to 1 %. What is not a sum of them at all (APG) differs by far more.
NOT_A_SUM = 0.03


@dataclass
class Guidance:
    """The branches' weights in the guided prediction of the last computed step.

    calls: the transformer's arguments in each of its calls. weights: 0-dim, one for each branch, which add up to one.
    unexplained: the share of the guided prediction that is not their sum, 0-dim; None if it is not known, or was read.
    """

    calls: list[dict] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)
    unexplained: torch.Tensor | None = None

    def forget(self) -> None:
        """Drop the calls' tensors: the next trial has to wait for other calls."""
        self.calls, self.weights = [], []

    def fit(self, calls: list[dict], branches: Sequence[torch.Tensor], guided: torch.Tensor) -> None:
        """Find the weights by least squares, without reading the device.

        calls: as above. branches: the outputs of all branches. guided: the guided prediction in the shape of each.
        """
        outputs = [output.float().flatten() for output in branches]
        first, size = outputs[0], guided.float().norm().clamp_min(1e-12)
        differences = torch.stack([torch.zeros_like(first), *(output - first for output in outputs[1:])])
        target = guided.float().flatten() - first
        products = differences @ differences.T
        # branches that are equal have no weights of their own: the smallest are as good as any
        ridge = 1e-7 * products.diagonal().max() + 1e-30
        products = products + ridge * torch.eye(len(outputs), device=first.device)
        found = torch.linalg.solve_ex(products, (differences @ target)[:, None]).result[:, 0]
        self.calls = calls
        self.weights = [1 - found[1:].sum(), *found[1:]]
        self.unexplained = (found @ differences - target).norm() / size

    def is_sum(self) -> bool:
        """Whether the guided prediction was the branches' sum; reads the device once after each `fit`."""
        unexplained, self.unexplained = self.unexplained, None
        return unexplained is None or not float(unexplained) > NOT_A_SUM

    def mixed(self, branches: Sequence[torch.Tensor], weights: Sequence[float] | None = None) -> torch.Tensor:
        """The guided prediction of these outputs, float32. weights: in place of those that were found."""
        chosen: Sequence[float | torch.Tensor] = weights or self.weights
        return torch.stack([weight * output.float() for weight, output in zip(chosen, branches)]).sum(0)
