"""The predictions that one stage keeps: the guided ones and, where needed, the unconditional ones."""

import torch

from .config import LFCacheConfig
from .reuse import REUSES


class Predictions:
    """The last computed predictions, and the stand-ins that are made from them.

    Some samplers (*_cfg_pp) read the unconditional prediction too. It is kept and reused in the same
    way, from the same calls.
    """

    def __init__(self, config: LFCacheConfig) -> None:
        self.config = config
        self.guided = REUSES[config.reuse](config.cache_device)
        self.uncond = REUSES[config.reuse](config.cache_device)
        # the last prediction, if the reuse keeps something else
        self._last: torch.Tensor | None = None

    @property
    def sigma(self) -> float | None:
        """Noise level of the last computed call."""
        return self.guided.sigma

    @property
    def last(self) -> torch.Tensor | None:
        """The last computed prediction, or None."""
        return self.guided.current if self.guided.keeps_prediction else self._last

    def matches(self, x: torch.Tensor, with_uncond: bool) -> bool:
        """Whether everything is there that a reused call on x needs."""
        return self.guided.matches(x) and (not with_uncond or self.uncond.matches(x))

    def store(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor, uncond: torch.Tensor | None) -> None:
        """Keep the predictions of a computed call, in x's shape; the caller must not use them afterwards."""
        self.guided.store(x, sigma, prediction)
        if not self.guided.keeps_prediction:
            self._last = prediction
        if uncond is not None:
            self.uncond.store(x, sigma, uncond)
        elif self.uncond.current is not None:  # it belongs to an earlier call than the guided one
            self.uncond = REUSES[self.config.reuse](self.config.cache_device)

    def predict(self, x: torch.Tensor, sigma: float, with_uncond: bool) -> list[torch.Tensor]:
        """The stand-ins for the guided prediction and, with `with_uncond`, the unconditional one."""
        reuses = [self.guided, self.uncond] if with_uncond else [self.guided]
        return [reuse.predict(x, sigma) for reuse in reuses]

    @property
    def nbytes(self) -> int:
        """Bytes kept now; a tensor that is kept in two places counts once."""
        kept = [self._last, *self.guided.tensors, *self.uncond.tensors]
        return sum({id(t): t.nbytes for t in kept if t is not None}.values())
