"""Our place in a scheduler's step, beside the wrappers of others."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

Answer = Callable[[torch.Tensor, Any], torch.Tensor]


class WrappedStep:
    """What stands for `scheduler.step` until `remove`.

    before(model_output, sample): what the scheduler gets in place of the guided prediction. after(): the step is made.
    A deep or pickled copy of the scheduler has its own plain step; a shallow one shares ours.
    """

    def __init__(self, scheduler: Any, before: Answer, after: Callable[[], None]) -> None:
        self.scheduler = scheduler
        self.before = before
        self.after = after
        self.is_active = True
        self.original = scheduler.step
        self.__signature__ = inspect.signature(self.original)  # pipelines look at what a step takes
        own = getattr(type(scheduler), "step", None)  # a wrapper of others may take anything
        self.names = list(inspect.signature(own).parameters)[1:] if own else list(self.__signature__.parameters)
        self.is_own = "step" in vars(scheduler)  # somebody had wrapped it before
        scheduler.step = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(self.names, args)), **kwargs}
        output = given.get(self.names[0])
        if not self.is_active or not isinstance(output, torch.Tensor):
            return self.original(*args, **kwargs)
        output = self.before(output, given.get("sample"))
        if args:
            args = (output, *args[1:])
        else:
            kwargs[self.names[0]] = output
        result = self.original(*args, **kwargs)
        self.after()
        return result

    def __deepcopy__(self, memo: dict) -> Any:
        copied = memo.get(id(self.scheduler))
        return self if copied is None else copied.step

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
