"""TeaCache: skip the blocks until the input's accumulated, rescaled change reaches a threshold.

Source: arXiv 2411.19108; github.com/ali-vilab/TeaCache (7c10efc: TeaCache4Wan2.1 and
eval/teacache/experiments/opensora.py); welltop-cn/ComfyUI-TeaCache. This is an implementation of
our own, written after reading them.

Rule of the source: every call measures the relative change of a signal, that is its mean absolute
change since the call before over the mean absolute value of the signal before. A polynomial of
degree 4, fitted to the model, rescales the change, and the results are added up. While the sum is
below the threshold, the blocks are skipped and their last residual (after the last block minus
before the first) is added; else they run and the sum starts again at 0. Cond and uncond decide
separately.

Signals, each with the calls that its source always computes:
- "modulated" (the paper; Open-Sora, Flux, HunyuanVideo): block 0's normed and modulated input;
  the first call and the last.
- "embedding" (the Wan release with `--use_ret_steps`): the projected timestep embedding `e0`,
  the same for every clip; the first five calls. The release's other mode uses the embedding
  before its projection, which the host does not pass to the blocks.

Departures: calls are counted for each branch, not by parity. The default coefficients (1, 0) are
the rule without a polynomial. The fit uses the calls of a few clips of the tiny model, where the
authors used 70 prompts.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.peers.block_stack import ReusedStack, attach_stack, relative_change

DEGREE = 4
ALWAYS = {"modulated": (1, 1), "embedding": (5, 0)}  # calls computed at the start and at the end


@dataclass
class TeaCacheRule:
    """Decides whether a call is computed, for one branch in one run.

    coefficients: of the polynomial, highest power first. first, last: how many calls at the start and
        at the end are always computed. calls: how many the run has.
    """

    threshold: float
    coefficients: tuple
    first: int
    last: int
    calls: int

    def __post_init__(self):
        self.call = 0
        self.accumulated = 0.0
        self.previous = None

    def computes(self, signal):
        """signal: the call's signal; the rule may keep the tensor."""
        call, self.call = self.call, self.call + 1
        previous, self.previous = self.previous, signal
        if self.first <= call < self.calls - self.last:
            self.accumulated += np.polyval(self.coefficients, relative_change(signal, previous))
            if self.accumulated < self.threshold:
                return False
        self.accumulated = 0.0
        return True


class TeaCacheBranch(ReusedStack):
    def __init__(self, rule, model, signal):
        super().__init__(len(model.blocks))
        self.rule, self.block, self.signal = rule, model.blocks[0], signal

    def start_call(self, img, vec):
        self.is_reused = not self.rule.computes(signal_of(self.signal, self.block, img, vec))


def signal_of(name, block, img, vec):
    """The signal of a call, a new tensor. img: (B, L, C), the input of block 0; vec: (B, 1, 6, C)."""
    if name == "embedding":
        return vec.clone()
    shift, scale = (block.modulation.to(vec) + vec).unbind(2)[:2]
    return block.norm1(img) * (1 + scale) + shift


def attach_teacache(patcher, threshold, coefficients=(1.0, 0.0), signal="modulated"):
    """A clone of the patcher with TeaCache.

    coefficients: `calibration["teacache"][signal]` of `benchmarks.peers.calibrate`.
    """
    first, last = ALWAYS[signal]

    def new_branch(model, steps, cond):
        return TeaCacheBranch(TeaCacheRule(threshold, tuple(coefficients), first, last, steps), model, signal)

    return attach_stack(patcher, "teacache", new_branch)


def fit_coefficients(input_changes, output_changes):
    """Fit the polynomial from relative changes of the signal to those of the model's output.

    Source: np.polyfit of degree 4, as the authors say in ali-vilab/TeaCache issue 2.
    input_changes, output_changes: floats, one per call of uncached runs. Returns floats, highest
        power first.
    """
    return [float(c) for c in np.polyfit(input_changes, output_changes, DEGREE)]
