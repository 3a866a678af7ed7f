"""The base of every reuse: it keeps computed predictions and makes the stand-in from them."""

from typing import ClassVar

import torch

from .derivatives import Weight


class Reuse:
    """Keeps the predictions of the last computed calls and makes a stand-in for the next ones.

    A subclass sets `name` and overrides `store`, `predict` and, if it keeps more than one tensor, `tensors`.
    One that is corrected overrides `weights` and `nodes` too. Kept tensors belong to this object alone and are
    never written to.

    cache_device: where they are kept: the `model`'s device, or `cpu`.
    """

    # by which users choose it
    name: ClassVar[str]
    # whether `current` is the last computed prediction itself, so that the next one can be compared with it
    keeps_prediction: ClassVar[bool] = True
    # whether a Corrector puts right what it did; what it is given and predicts is then the derivative
    is_corrected: ClassVar[bool] = False

    def __init__(self, cache_device: str = "model") -> None:
        self.cache_device = cache_device
        self.sigma: float | None = None
        self.current: torch.Tensor | None = None

    @property
    def tensors(self) -> list[torch.Tensor | None]:
        """The kept tensors; None for one that is not there yet."""
        return [self.current]

    @property
    def cache_bytes(self) -> int:
        """Bytes kept now."""
        return sum(t.nbytes for t in self.tensors if t is not None)

    def matches(self, x: torch.Tensor) -> bool:
        """Whether a prediction is kept that can stand in for a call on x (equal shape and dtype)."""
        return self.current is not None and (self.current.shape, self.current.dtype) == (x.shape, x.dtype)

    def store(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> None:
        """Keep a computed prediction; the caller must not use it afterwards.

        x: the noised latent it was computed for, in the same shape; not written to. sigma: its noise level.
        """
        self.sigma, self.current = sigma, self._on_cache_device(prediction)

    def predict(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """The stand-in for the prediction at x and sigma, in x's shape and dtype, on x's device."""
        raise NotImplementedError

    def weights(self, sigma: float) -> list[Weight]:
        """The weights of the kept tensors in `predict`, newest last."""
        raise NotImplementedError

    @property
    def nodes(self) -> list[tuple[float, torch.Tensor]]:
        """The kept calls, oldest first: noise level and tensor."""
        raise NotImplementedError

    def _on_cache_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cpu() if self.cache_device == "cpu" else tensor
