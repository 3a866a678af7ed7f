"""Broadcast: attention and feed-forward layers keep their output for a fixed number of calls.

Sources: FORA, arXiv 2407.01425, github.com/prathebaselva/FORA; PAB, arXiv 2408.12588,
github.com/NUS-HPC-AI-Lab/VideoSys (4cce477: videosys/core/pab/pab_mgr.py). This is an
implementation of our own, written after reading them.

Rule of FORA: every `interval`-th call computes all layers; the calls between reuse the last
outputs. Rule of PAB: a kind of layer is computed if the number of the call is a multiple of
its range, or if the timestep (0 to 1000) lies outside a window; cross-attention, which changes
least, has the longest range. The output of a module is kept before the block's gate, as in FORA
and in VideoSys's CogVideoX (VideoSys's Open-Sora keeps it after the gate).

The modules run through `module_outputs`, because the host's attention patches do not suffice:
`optimized_attention_override` and `attn1_patch` sit between the projections, so that they
could skip only the attention itself, and not the four projections that PAB skips too.

Departures from FORA: calls are counted from the first instead of from the last, and Wan's
cross-attention, which FORA's model lacks, is kept like the other modules. Departures from PAB: Wan
has one self-attention over space and time, which gets the range of PAB's spatial attention. The
feed-forward broadcast, in the source for five blocks at three hand-picked timesteps, is a range
over all blocks here, off by default.
"""

import math
from dataclasses import dataclass

from benchmarks.peers.module_outputs import MODULES, attach_modules

EVERYWHERE = (-math.inf, math.inf)


@dataclass
class Broadcast:
    """The outputs of one composition of the batch in one run.

    ranges: {kind of module: range}; 1 never broadcasts. window: the timesteps between which it broadcasts.
    """

    ranges: dict
    window: tuple

    def __post_init__(self):
        self.call = -1
        self.outputs = {}

    def start_call(self, sigma):
        self.call += 1
        self.is_inside = self.window[0] < 1000 * sigma < self.window[1]

    def broadcasts(self, kind):
        return self.is_inside and self.call % self.ranges[kind] != 0

    def run_block(self, key, streams, compute):
        if key not in self.outputs or not self.broadcasts(key[0]):
            self.outputs[key] = compute()["x"]
        return {"x": self.outputs[key]}


def attach_fora(patcher, interval, window=EVERYWHERE):
    """A clone of the patcher with FORA."""
    return _attach(patcher, "fora", dict.fromkeys(MODULES, interval), window)


def attach_pab(patcher, self_range=2, cross_range=6, ffn_range=1, window=(450, 930)):
    """A clone of the patcher with PAB. The default window is the source's for Open-Sora 1.2."""
    return _attach(patcher, "pab", dict(zip(MODULES, (self_range, cross_range, ffn_range))), window)


def _attach(patcher, key, ranges, window):
    return attach_modules(patcher, key, lambda: Broadcast(ranges, window))
