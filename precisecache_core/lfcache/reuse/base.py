"""What every reuse has: predictions of the computed calls, and the stand-in that is made of them."""

from typing import ClassVar

import torch

# name -> class, filled by the classes themselves
REUSES: "dict[str, type[Reuse]]" = {}


class Reuse:
    """Predictions of the last computed calls, and what stands in for a call that is not computed.

    A subclass says its name, `class Mine(Reuse, name="mine")`, and overrides `store`, `predict` and,
    if it holds more than one tensor, `tensors`. Tensors held are ours: nobody else holds them, and
    nothing is written to them.

    cache_device: where they are held: the `model`'s device, or `cpu`.
    """

    # whether `current` is the last computed prediction itself, so that the next one can be compared with it
    holds_prediction: ClassVar[bool] = True

    def __init_subclass__(cls, name: str | None = None) -> None:
        if name is not None:
            REUSES[name] = cls

    def __init__(self, cache_device: str = "model") -> None:
        self.cache_device = cache_device
        self.sigma: float | None = None
        self.current: torch.Tensor | None = None

    @property
    def tensors(self) -> list[torch.Tensor | None]:
        """What is held, with None for what is not held yet."""
        return [self.current]

    @property
    def cache_bytes(self) -> int:
        """Bytes held now."""
        return sum(t.nbytes for t in self.tensors if t is not None)

    def matches(self, x: torch.Tensor) -> bool:
        """Whether something is held that can stand in for a call on x."""
        return self.current is not None and (self.current.shape, self.current.dtype) == (x.shape, x.dtype)

    def store(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> None:
        """Keep a computed prediction; it is handed over and not used elsewhere.

        x: the noised latent it was computed for, in its shape; sigma: its noise level.
        """
        self.sigma, self.current = sigma, self._held(prediction)

    def predict(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """The stand-in for the prediction at x and sigma, in x's shape and on x's device."""
        raise NotImplementedError

    def _held(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cpu() if self.cache_device == "cpu" else tensor
