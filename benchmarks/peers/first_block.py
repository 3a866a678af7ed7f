"""First-block cache: run block 0, and the other blocks only if block 0's residual has changed.

Source: github.com/chengzeyi/ParaAttention and its port chengzeyi/Comfy-WaveSpeed (8253745); no
paper. This is an implementation of our own, written after reading the port.

Rule of the source: block 0's residual is compared with that of the last fully computed call, by
the mean absolute change over the mean absolute value of the latter. Below the threshold, the last
residual of the remaining blocks is added to block 0's output; else they run and both residuals are
kept. There is no warm-up and no limit on reuses in a row, as by the node's defaults. All rows of a
batch decide together, as in Comfy-WaveSpeed.

Departure: if cond and uncond run in separate batches, each decides for itself; in the source the
second follows the first.
"""

from dataclasses import dataclass

import torch

from benchmarks.peers.block_stack import ReusedStack, attach_stack, relative_change


@dataclass
class FirstBlockRule:
    """Decides whether the other blocks are skipped, for one batch in one run."""

    threshold: float
    previous: torch.Tensor | None = None

    def reuses(self, residual):
        """residual: what block 0 added; the rule may keep the tensor."""
        if self.previous is not None and relative_change(residual, self.previous) < self.threshold:
            return True
        self.previous = residual
        return False


class FirstBlockBranch(ReusedStack):
    first = 1

    def __init__(self, rule, blocks):
        super().__init__(blocks)
        self.rule = rule

    def computed(self, index, before, after):
        if index == 0:
            self.is_reused = self.rule.reuses(after - before)
        super().computed(index, before, after)


def attach_first_block(patcher, threshold):
    """A clone of the patcher with the first-block cache."""

    def new_branch(model, steps, cond):
        return FirstBlockBranch(FirstBlockRule(threshold), len(model.blocks))

    return attach_stack(patcher, "first_block", new_branch, is_joint=True)
