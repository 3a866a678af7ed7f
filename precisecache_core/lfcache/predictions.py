"""The predictions that one stage holds: the guided one's, and the unconditional one's beside it."""

import torch

from .config import LFCacheConfig
from .reuse import REUSES


class Predictions:
    """What was computed last, and what stands in for the next calls.

    Some samplers (*_cfg_pp) read the unconditional prediction too. It is held and reused in the same
    way, from the same calls.
    """

    def __init__(self, config: LFCacheConfig) -> None:
        self.config = config
        self.guided = REUSES[config.reuse](config.cache_device)
        self.uncond = REUSES[config.reuse](config.cache_device)
        # the last prediction, where the reuse holds something else
        self._last: torch.Tensor | None = None

    @property
    def sigma(self) -> float | None:
        """Noise level of the last computed call."""
        return self.guided.sigma

    @property
    def last(self) -> torch.Tensor | None:
        """The last computed prediction, or None."""
        return self.guided.current if self.guided.holds_prediction else self._last

    def matches(self, x: torch.Tensor, with_uncond: bool) -> bool:
        """Whether everything is held that a reused call on x needs."""
        return self.guided.matches(x) and (not with_uncond or self.uncond.matches(x))

    def store(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor, uncond: torch.Tensor | None) -> None:
        """Keep the predictions of a computed call; both are handed over."""
        self.guided.store(x, sigma, prediction)
        if not self.guided.holds_prediction:
            self._last = prediction
        if uncond is not None:
            self.uncond.store(x, sigma, uncond)
        elif self.uncond.current is not None:  # of another call than the guided one: no longer a pair
            self.uncond = REUSES[self.config.reuse](self.config.cache_device)

    def predict(self, x: torch.Tensor, sigma: float, with_uncond: bool) -> list[torch.Tensor]:
        """The stand-ins for the guided prediction and, if asked for, the unconditional one."""
        held = [self.guided, self.uncond] if with_uncond else [self.guided]
        return [reuse.predict(x, sigma) for reuse in held]

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        held = [self._last, *self.guided.tensors, *self.uncond.tensors]
        return sum({id(t): t.nbytes for t in held if t is not None}.values())
