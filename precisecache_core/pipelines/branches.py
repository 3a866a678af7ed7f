"""The calls of a transformer in one step: one for each guidance branch, or one for all of them."""

from collections.abc import Callable
from typing import Any

import torch

MOST = 8  # calls in one step; if there are more, the pipeline does not step the scheduler that we know
TEXT = ("encoder_hidden_states", "pooled_projections")  # how the names of text inputs begin


class Branches:
    """The calls of this step, and what is kept of those of the last computed one.

    calls: arguments and output of each computed call of this step. count: how many calls there were in this step.
    expected: how many there were in the last computed one, None before it. module: the transformer that was called.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[dict, torch.Tensor]] = []
        self.count = 0
        self.expected: int | None = None
        self.module: Any = None
        self._texts: dict[str, Any] = {}  # of the first call
        self._make: Callable[[torch.Tensor], Any] = lambda tensor: (tensor,)  # what the transformer returns

    def note(self, module: Any, kwargs: dict) -> None:
        """Note what a computed call was made with."""
        if self.count == 1:
            self.module, self._texts = module, {name: kwargs[name] for name in kwargs if name.startswith(TEXT)}

    def take(self, result: Any, kwargs: dict) -> torch.Tensor | None:
        """Keep a computed call; returns its output, None if that is not one tensor."""
        outputs = outputs_of(result)
        if len(outputs) != 1 or not isinstance(outputs[0], torch.Tensor):
            return None
        self.calls.append((kwargs, outputs[0].detach()))
        self._make = maker_of(result)
        return outputs[0]

    def answer(self, tensor: torch.Tensor, rows: int) -> Any:
        """What the transformer returns for so many rows, from an answer of one branch.

        It is a copy, because some pipelines write into what they get.
        """
        return self._make(torch.cat([tensor] * -(-rows // len(tensor)))[:rows])

    def is_text_new(self, kwargs: dict) -> bool:
        """Whether a step's first call has another text than that of the last computed step.

        Reads the device only if its tensors are others.
        """
        return any(_differ(text, kwargs.get(name)) for name, text in self._texts.items())

    def close(self, is_computed: bool) -> list[tuple[dict, torch.Tensor]]:
        """The step is over: returns its calls."""
        calls, self.calls = self.calls, []
        self.expected = self.count if is_computed else self.expected
        self.count = 0
        return calls


def outputs_of(result: Any) -> list[Any]:
    """The values in what a transformer returned: a tensor, a tuple or an output class; none if it is neither."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, tuple):
        return list(result)
    return list(result.to_tuple()) if hasattr(result, "to_tuple") else []


def maker_of(result: Any) -> Callable[[torch.Tensor], Any]:
    """A function that makes what the transformer returned, with one output, from another tensor."""
    kind = type(result)
    if issubclass(kind, torch.Tensor):
        return lambda tensor: tensor
    if issubclass(kind, tuple):
        return lambda tensor: (tensor,)
    name = next(iter(result.keys()))
    return lambda tensor: kind(**{name: tensor})


def widened(tensor: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """A tensor of one branch in x's shape, which holds all branches if nobody described the pipeline; None if it fails.

    tensor, x: (B, …) and (n B, …).
    """
    if tensor.shape[1:] != x.shape[1:] or len(x) % len(tensor):
        return None
    return tensor if len(tensor) == len(x) else torch.cat([tensor] * (len(x) // len(tensor)))


def _differ(old: Any, new: Any) -> bool:
    if old is new:
        return False
    if not isinstance(old, torch.Tensor) or not isinstance(new, torch.Tensor):
        return type(old) is not type(new)
    return old.shape != new.shape or not torch.equal(old, new.to(old))
