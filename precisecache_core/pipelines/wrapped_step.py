"""Our place in a scheduler's step, beside the wrappers of others."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

Answer = Callable[[torch.Tensor, Any], torch.Tensor]


class WrappedStep:
    """What stands for `scheduler.step` until `remove`.

    before(model_output, sample): what the scheduler gets in place of the guided prediction. after(): the step is made.
    A copy of the scheduler, deep or pickled, has its own plain step.
    """

    def __init__(self, scheduler: Any, before: Answer, after: Callable[[], None]) -> None:
        self.scheduler = scheduler
        self.before = before
        self.after = after
        self.is_active = True
        self.original = scheduler.step
        self.signature = self.__signature__ = inspect.signature(self.original)  # pipelines look at it, too
        self.output, *_ = self.signature.parameters  # the name of the prediction
        self.is_own = "step" in vars(scheduler)  # somebody had wrapped it before
        scheduler.step = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.is_active:
            return self.original(*args, **kwargs)
        given = self.signature.bind(*args, **kwargs)
        given.arguments[self.output] = self.before(given.arguments[self.output], given.arguments.get("sample"))
        result = self.original(*given.args, **given.kwargs)
        self.after()
        return result

    def __reduce__(self) -> tuple:
        return getattr, (self.scheduler, "step")

    def remove(self) -> None:
        """Put back what was there; beneath another's wrapper that came later, only pass calls on.

        Does nothing the second time.
        """
        self.is_active = False
        if vars(self.scheduler).get("step") is not self:
            return
        below, is_own = self.original, self.is_own
        while isinstance(below, WrappedStep) and not below.is_active:
            below, is_own = below.original, below.is_own
        if is_own:
            self.scheduler.step = below
        else:
            del self.scheduler.step
