"""MagCache: skip the blocks while the calibrated change of the residual's magnitude adds up to little.

Source: arXiv 2506.09045; github.com/Zehong-Ma/MagCache (df81cb1, MagCache4Wan2.1). This is an
implementation of our own, written after reading it.

Rule of the source: a table from one uncached run holds a ratio for every call: the magnitude of the
stack's residual (after the last block minus before the first) over that of the call before. The
first `retention` of the run is computed. From then on each call multiplies the ratio since the last
computed call by its own and adds |1 - ratio| to an error. While the error is below the threshold and
no more than `max_skips` calls were skipped in a row, the last residual is added in place of the
blocks; else the blocks run, and ratio, error and count start again. Cond and uncond have tables and
errors of their own. A table of another length is sampled at the nearest index.

Departures: calls are counted for each branch, not by parity. The table is the mean over a few
clips of the tiny model, where the source uses a single run.
"""

from dataclasses import dataclass

from benchmarks.peers.block_stack import ReusedStack, attach_stack


@dataclass
class MagCacheRule:
    """Decides whether a call is computed, for one branch in one run. ratios: one per call."""

    threshold: float
    ratios: list
    max_skips: int
    retention: float

    def __post_init__(self):
        self.call = 0
        self._begin()

    def _begin(self):
        self.ratio, self.error, self.skips = 1.0, 0.0, 0

    def computes(self):
        call, self.call = self.call, self.call + 1
        if call < int(len(self.ratios) * self.retention):
            return True
        # samplers with several calls per step run past the end of the table
        self.ratio *= self.ratios[min(call, len(self.ratios) - 1)]
        self.error += abs(1 - self.ratio)
        self.skips += 1
        if self.error < self.threshold and self.skips <= self.max_skips:
            return False
        self._begin()
        return True


class MagCacheBranch(ReusedStack):
    def __init__(self, rule, blocks):
        super().__init__(blocks)
        self.rule = rule

    def start_call(self, img, vec):
        self.is_reused = not self.rule.computes()


def attach_magcache(patcher, threshold, ratios, max_skips=4, retention=0.2):
    """A clone of the patcher with MagCache.

    ratios: (for cond, for uncond), `calibration["magcache"]` of `benchmarks.peers.calibrate`.
    """

    def new_branch(model, steps, cond):
        table = nearest(ratios[cond], steps)
        return MagCacheBranch(MagCacheRule(threshold, table, max_skips, retention), len(model.blocks))

    return attach_stack(patcher, "magcache", new_branch)


def nearest(ratios, length):
    """The table resampled to another length by nearest index; the first and the last entry stay."""
    if length == 1:
        return [ratios[-1]]
    scale = (len(ratios) - 1) / (length - 1)
    return [ratios[round(i * scale)] for i in range(length)]


def magnitude_ratio(residual, previous):
    """Mean over tokens of |residual| / |previous|. Both (B, L, C). A float."""
    return (residual.norm(dim=-1) / previous.norm(dim=-1)).mean().item()
