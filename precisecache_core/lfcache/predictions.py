"""The predictions that one stage keeps: the guided ones and, where needed, the unconditional ones."""

from collections.abc import Sequence

import torch

from .config import LFCacheConfig
from .reuse import REUSES
from .reuse.base import Reuse
from .reuse.corrector import Corrector
from .reuse.derivatives import Node


class Predictions:
    """The last computed predictions, and the stand-ins that are made from them.

    Some samplers (*_cfg_pp) read the unconditional prediction too. It is kept and reused in the same
    way, from the same calls.

    can_correct: whether predictions are derivatives of x (see `Parametrization.in_derivatives`), which
        correction needs. levels: as in `Corrector`.
    """

    def __init__(self, config: LFCacheConfig, can_correct: bool = False, levels: Sequence[float] = ()) -> None:
        self.config = config
        self.guided = self._new()
        self.uncond = self._new()
        is_corrected = can_correct and self.guided.is_corrected
        self.corrector = Corrector(levels, config.cache_device) if is_corrected else None
        # the last prediction, if the reuse keeps something else
        self._last: torch.Tensor | None = None

    def _new(self) -> Reuse:
        return REUSES[self.config.reuse](self.config.cache_device)

    @property
    def sigma(self) -> float | None:
        """Noise level of the last computed call."""
        return self.guided.sigma

    @property
    def last(self) -> torch.Tensor | None:
        """The last computed prediction, or None."""
        return self.guided.current if self.guided.keeps_prediction else self._last

    @property
    def is_owing(self) -> bool:
        """Whether the next computed call has to be kept, because earlier ones are to be corrected by it."""
        return self.corrector is not None and self.corrector.is_owing

    @property
    def correction(self) -> torch.Tensor | None:
        """How far x was displaced at the last computed call, RMS, 0-dim float32; None if nothing was corrected."""
        return None if self.corrector is None else self.corrector.size

    def matches(self, x: torch.Tensor, with_uncond: bool) -> bool:
        """Whether everything is there that a reused call on x needs."""
        return self.guided.matches(x) and (not with_uncond or self.uncond.matches(x))

    def store(
        self, x: torch.Tensor, sigma: float, prediction: torch.Tensor, uncond: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Keep the predictions of a computed call, in x's shape; the caller must not write to them afterwards.

        x: the latent of the call, in the coordinates of the predictions. Returns what answers the call in their
        place, as `predict` does.
        """
        new = [prediction] if uncond is None else [prediction, uncond]
        answers = new
        if uncond is None and self.uncond.current is not None:  # it belongs to an earlier call than the guided one
            self.uncond = self._new()
            if self.corrector is not None:
                self.corrector.forget()
        elif uncond is not None and self.uncond.current is None and self.guided.current is not None:
            if self.corrector is not None:  # it needs both predictions of each call
                self.guided = self._new()
                self.corrector.forget()
        if self.corrector is not None:
            self.corrector.begin(sigma)
            new = self.corrector.correct(sigma, x, self._nodes(len(new)), new)
            answers = self.corrector.hand_back(sigma, new)
        for reuse, tensor in zip((self.guided, self.uncond), new):
            reuse.store(x, sigma, tensor)
        if not self.guided.keeps_prediction:
            self._last = prediction
        return answers

    def _nodes(self, streams: int) -> list[Node]:
        """The kept calls as the corrector takes them; only those that have all streams."""
        reuses = (self.guided, self.uncond)[:streams]
        calls = zip(*(reuse.nodes for reuse in reuses)) if all(reuse.nodes for reuse in reuses) else ()
        return [Node(call[0][0], [tensor for _, tensor in call]) for call in calls]

    def predict(self, x: torch.Tensor, sigma: float, with_uncond: bool) -> list[torch.Tensor]:
        """The stand-ins for the guided prediction and, with `with_uncond`, the unconditional one."""
        reuses = [self.guided, self.uncond] if with_uncond else [self.guided]
        predicted = [reuse.predict(x, sigma) for reuse in reuses]
        if self.corrector is None:
            return predicted
        self.corrector.begin(sigma)
        return self.corrector.answer(sigma, predicted, [reuse.weights(sigma) for reuse in reuses])

    def revoke(self) -> None:
        """What `predict` returned last was not used: the call is computed, and not kept."""
        if self.corrector is not None:
            self.corrector.revoke()

    def cross_boundary(self) -> None:
        """The next computed call has another input than the ones before it (see `LFCacheRun`): no trend goes on."""
        self.guided, self.uncond = self._new(), self._new()
        if self.corrector is not None:
            self.corrector.cross()

    @property
    def nbytes(self) -> int:
        """Bytes kept now; a tensor that is kept in two places counts once."""
        kept = [self._last, *self.guided.tensors, *self.uncond.tensors]
        if self.corrector is not None:
            kept += self.corrector.tensors
        return sum({id(t): t.nbytes for t in kept if t is not None}.values())
