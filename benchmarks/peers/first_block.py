"""First-block cache: run block 0, and the others only if what it added has changed.

Source: github.com/chengzeyi/ParaAttention and its port chengzeyi/Comfy-WaveSpeed (8253745); no
paper. Read in the port, written anew.

Rule of the source: the mean absolute change of block 0's residual against that of the last
fully computed call, over the mean absolute value of the latter; if it is below the threshold,
the last residual of the remaining blocks is added to block 0's output, else they run and both
residuals are kept. No warm-up and no limit on reuses in a row, the node's defaults. As in
Comfy-WaveSpeed the rows of a batch decide together.

Departure: where cond and uncond run apart, each decides for itself; the source lets the second
follow the first.
"""

from dataclasses import dataclass

import torch

from benchmarks.peers.block_stack import ReusedStack, attach_stack, relative_change


@dataclass
class FirstBlockRule:
    """Whether the other blocks are left out, for one batch in one run."""

    threshold: float
    previous: torch.Tensor | None = None

    def reuses(self, residual):
        """residual: what block 0 added, handed over."""
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
    """A clone of the patcher with first-block cache."""
    def new_branch(model, steps, cond):
        return FirstBlockBranch(FirstBlockRule(threshold), len(model.blocks))

    return attach_stack(patcher, "first_block", new_branch, is_joint=True)
