"""Correction: a computed call shows what the reused calls before it got wrong, and that is taken back."""

from collections.abc import Sequence

import torch

from .derivatives import Node, Step, Weight, combine

# The sampler moves x by something else than derivatives (noise, for example) if what they do not explain of a move is
# more than this many times what one derivative does in the longest step. Samplers of several steps reach 1.4, noise 11
# or more where it begins.
UNEXPLAINED = 3.0
# A sampler takes one-step moves if what derivatives leave unexplained of a move is less than this share of e.
ONE_STEP = 0.03
SAME_LEVEL = 1e-3  # a call is at a level of the schedule if it differs from it by no more than this share


class Corrector:
    """Corrects the calls of one stage.

    Source: ours; the corrector of a predictor-corrector pair, from outside of the sampler. Between two computed
    calls p and j the sampler moves x by the sum over calls k of amount_k d_k, where d = (x - denoised) / sigma is
    the derivative of x and amount_k the step in sigma that follows k. Reused calls are answered with predicted
    derivatives. Once j is computed, interpolation between p and j tells better what they should have been, and so

        e = sum over reused calls of amount_k (predicted d_k - interpolated d_k)

    is how far x is displaced. From j on the answers are shifted by e / length, which moves x by -e while sigma
    falls by `length`, that of the last gap. What is left when the next call is computed joins its e. The derivative
    at j was computed at the displaced x: it holds e / sigma too much where the model removes what displaces x, and
    nothing where the model keeps it. `theta` is in between. Multi-step samplers also carry the jump from predicted to
    computed derivatives on, which displaces the computed call further: more of e / sigma is taken out. They are told
    by their moves, which derivatives times steps explain only in part. With two streams they are left alone.

    Streams: the guided derivative and, for the *_cfg_pp samplers, the unconditional one. These samplers move x by
    next_sigma d_uncond - sigma d_guided; both answers are shifted alike.

    Samplers that add noise (ancestral, SDE, lcm) do not move x by derivatives alone, so that e means nothing. Moves
    between computed calls are compared with what the derivatives explain; once that is too little, e stays 0. All of
    this stays on the device. Samplers that call the model between the levels of the schedule (dpm_2) do not use every
    derivative for the step that follows it; with them nothing is corrected.

    levels: the noise levels of the sampler's steps, with the one at which the run ends, as far as they are known.
    cache_device: as in LFCacheConfig.
    """

    # how much of e / sigma is taken out of the derivative that was computed at the displaced x
    theta = 0.5
    theta_multi_step = 0.75

    def __init__(self, levels: Sequence[float] = (), cache_device: str = "model") -> None:
        self.levels = levels
        self.end_sigma = levels[-1] if levels else 0.0
        self.cache_device = cache_device
        self.trust: torch.Tensor | None = None  # 0-dim: 1 while derivatives explain the moves of x, otherwise 0
        self.size: torch.Tensor | None = None  # RMS of the displacement that the last computed call showed, 0-dim
        self._longest = 0.0  # step of the run, which sets the scale of a move
        self._is_aside = False  # a call was between the levels
        self.forget()

    def forget(self) -> None:
        """Drop what is known of the path of x, because it has been left."""
        self.displacement: torch.Tensor | None = None  # e of the last computed call
        self._returned = 0.0  # share of it that has been handed back
        self._length = 0.0
        self._steps: list[Step] = []  # from the last computed call on
        self._position: torch.Tensor | None = None  # x at the last computed call

    @property
    def tensors(self) -> list[torch.Tensor | None]:
        """The kept tensors; None for one that is not there."""
        return [self.displacement, self._position]

    @property
    def is_owing(self) -> bool:
        """Whether reused calls wait to be corrected, or something to be handed back."""
        return not self._is_aside and (any(step.rows is not None for step in self._steps) or self._left != 0)

    @property
    def _left(self) -> float:
        """The share of the displacement that x still has."""
        return 0.0 if self.displacement is None else 1 - self._returned

    def begin(self, sigma: float) -> None:
        """A call begins at this noise level; now the step that followed the last call is known."""
        if len(self.levels) > 1 and not any(abs(level - sigma) <= SAME_LEVEL * sigma for level in self.levels):
            self._is_aside = True
        if not self._steps or self._steps[-1].amounts:
            return
        last = self._steps[-1]
        change = sigma - last.sigma
        if change > 0:  # samplers that go back up begin another path
            return self.forget()
        last.amounts = (change,) if last.streams == 1 else (-last.sigma, sigma)
        self._longest = max(self._longest, -change)
        self._returned -= last.shift * change

    def answer(
        self, sigma: float, predicted: Sequence[torch.Tensor], rows: Sequence[Sequence[Weight]]
    ) -> list[torch.Tensor]:
        """The answers of a reused call: the predicted derivative of each stream, shifted.

        rows: for each stream, the weights of the last kept derivatives in `predicted`, newest last.
        """
        self._steps.append(Step(sigma, len(rows), rows, self._shift))
        return self._shifted(predicted)

    def revoke(self) -> None:
        """The last call was computed after all, and not kept."""
        if self._steps and self._steps[-1].rows is not None:
            self._steps.pop()

    def cross(self) -> None:
        """The next call's derivative cannot be compared with earlier ones: the reused calls stay uncorrected."""
        self._steps = [step for step in self._steps if step.rows is None]
        self._position = None

    def correct(
        self, sigma: float, x: torch.Tensor, nodes: Sequence[Node], new: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Take a computed call: correct its derivatives by what the reused calls before it did to x.

        x: the latent of the call, in the coordinates of the derivatives; not written to. nodes: the computed calls
        before it that are kept, oldest first, uncorrected calls among them as they were given to `answer`.
        new: the call's derivatives. Returns the derivatives to keep; `new` itself if there is nothing to correct.
        """
        if self._is_aside:
            self.forget()
            self.size = None
            return list(new)
        unexplained = self._examine(x, nodes)
        gap = abs(sigma - nodes[-1].sigma) if nodes else 0.0
        e = self._error(sigma, nodes, new) if gap else None
        left = self._left
        if left and self.displacement is not None:
            rest = left * self.displacement.to(x.device).float()
            e = rest if e is None else e + rest
        self._returned = 0.0
        if gap:
            self._length = self.length(sigma, gap)
        self.displacement = self.size = None
        corrected = list(new)
        if e is not None and self.trust is not None:
            size = e.norm() / e.numel() ** 0.5
            is_one_step = unexplained < ONE_STEP * size
            is_sure = self.trust > 0 if len(new) == 1 else (self.trust > 0) & is_one_step
            e = torch.where(is_sure, e, 0.0)  # a product would keep what is not a number
            self.size = torch.where(is_sure, size, 0.0)
            theta = torch.where(is_one_step, self.theta, self.theta_multi_step)
            corrected = [torch.addcmul(d.float(), e, -theta / sigma).to(d.dtype) for d in new]
            self.displacement = self._on_cache_device(e.to(new[0].dtype))
        self._steps = []
        return corrected

    def hand_back(self, sigma: float, corrected: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The answers of a computed call, from what `correct` returned."""
        self._steps.append(Step(sigma, len(corrected), None, self._shift))
        return self._shifted(corrected)

    def length(self, sigma: float, gap: float) -> float:
        """The fall in sigma over which a displacement is handed back that a computed call showed at `sigma`.

        gap: the distance in sigma to the computed call before it.
        """
        return min(gap, sigma - self.end_sigma)

    def interpolation(self, sigma: float, levels: Sequence[float]) -> list[float]:
        """The weights, one for each computed call, of what a reused call at `sigma` should have been.

        levels: sigma of the computed calls, oldest first; the reused call lies between the last two.
        """
        share = (sigma - levels[-2]) / (levels[-1] - levels[-2])
        return [*[0.0] * (len(levels) - 2), 1 - share, share]

    @property
    def _shift(self) -> float:
        """How much of the displacement the present call hands back per unit of sigma."""
        is_over = self.displacement is None or self._returned >= 1 or self._length <= 0
        return 0.0 if is_over else 1 / self._length

    def _shifted(self, derivatives: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        shift = self._shift
        if not shift or self.displacement is None:
            return list(derivatives)
        displacement = self.displacement.to(derivatives[0].device)
        return [torch.add(d, displacement, alpha=shift) for d in derivatives]

    def _error(self, sigma: float, nodes: Sequence[Node], new: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """The sum e over the reused calls since the last computed one, in x's shape, float32."""
        weights: list[list[Weight]] = [[0.0] * (len(nodes) + 1) for _ in new]
        levels = [*(node.sigma for node in nodes), sigma]
        for step in self._steps:
            if step.rows is None:
                continue
            should_be = self.interpolation(step.sigma, levels)
            for stream, amount in enumerate(step.amounts):
                total = weights[stream]
                for i, weight in enumerate(reversed(step.rows[stream])):
                    total[-2 - i] = total[-2 - i] + amount * weight
                for i, share in enumerate(should_be):
                    total[i] = total[i] - amount * share
        kept = [[*(node.derivatives[s] for node in nodes), d] for s, d in enumerate(new)]
        return combine([w for row in weights for w in row], [d for row in kept for d in row])

    def _examine(self, x: torch.Tensor, nodes: Sequence[Node]) -> torch.Tensor:
        """Compare the move of x since the last computed call with what the derivatives explain.

        Returns the RMS of what they do not explain, 0-dim float32; 0 if there is no move to compare.
        """
        before, self._position = self._position, self._on_cache_device(x.clone())
        if before is None or not self._longest:
            return x.new_zeros((), dtype=torch.float32)
        weights: list[list[Weight]] = [[0.0] * len(nodes) for _ in nodes[-1].derivatives]
        for step in self._steps:
            for stream, amount in enumerate(step.amounts):
                for i, weight in enumerate(reversed(step.rows[stream] if step.rows else [1.0])):
                    weights[stream][-1 - i] = weights[stream][-1 - i] - amount * weight
        terms = [(w, node.derivatives[s]) for s, row in enumerate(weights) for w, node in zip(row, nodes)]
        if self._returned and self.displacement is not None:
            terms.append((self._returned, self.displacement))
        moved = x.float() - before.to(x.device).float()
        # the newest derivative is on the device of the call, unless all are kept elsewhere
        combine([w for w, _ in terms], [tensor.to(x.device) for _, tensor in terms], moved)
        scale = self._longest * nodes[-1].derivatives[0].to(x.device).float().norm()
        unexplained = moved.norm()
        is_explained = (unexplained < UNEXPLAINED * scale).float()
        self.trust = is_explained if self.trust is None else self.trust * is_explained
        return unexplained / x.numel() ** 0.5

    def _on_cache_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cpu() if self.cache_device == "cpu" else tensor
