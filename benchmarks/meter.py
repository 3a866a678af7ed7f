"""The FLOPs of a sampling run: every evaluation of the network, trials included."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from testkit.full_size import forward

KEY = "flop_meter"
ATTENTION = ("bmm", "scaled_dot_product")


def fused_attention_flops(query, key, value, *args, out_shape=None, **kwargs):
    """FLOPs of fused attention on a CPU, from the shapes; torch's own counter does not count it."""
    return sdpa_flop_count(query, key, value)


FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused_attention_flops}


def flop_counter():
    """torch's counter, with the operations that it does not count by itself."""
    return FlopCounterMode(display=False, custom_mapping=FORMULAS)


class Meter:
    """Counts the FLOPs of every evaluation that reaches the network, after any cache on the patcher.

    known: {shape of the network's input: FLOPs}, so that each shape is counted only once. Runs share
        it if none of them skips a part of an evaluation. None counts every evaluation.
    """

    def __init__(self, known=None):
        from PreciseCache.nodes.host.trials import TRIAL_FLAG

        self.trial_flag = TRIAL_FLAG
        self.known = known
        self.calls = []  # (rows, FLOPs) of every evaluation other than trials
        self.trial_flops = 0

    @property
    def flops(self):
        """FLOPs of all evaluations, trials included."""
        return self.trial_flops + sum(flops for _, flops in self.calls)

    @property
    def rows(self):
        """Batch rows that the network evaluated, without trials; two per call with guidance."""
        return sum(rows for rows, _ in self.calls)

    def computed(self, row_flops):
        """The calls' FLOPs in units of `row_flops`, one fully evaluated row; each call is rounded to whole rows."""
        return sum(round(flops / row_flops) for _, flops in self.calls)

    def attach(self, patcher):
        """A clone of the patcher with the meter as the innermost DIFFUSION_MODEL wrapper."""
        from comfy.patcher_extension import WrappersMP

        patcher = patcher.clone()
        patcher.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, KEY)
        patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self._count)
        return patcher

    def _count(self, executor, x, *args, **kwargs):
        flops = (self.known or {}).get(x.shape)
        if flops is None:
            counter = flop_counter()
            with counter:
                result = executor(x, *args, **kwargs)
            flops = counter.get_total_flops()
            if self.known is not None:
                self.known[x.shape] = flops
        else:
            result = executor(x, *args, **kwargs)
        if any(isinstance(a, dict) and a.get(self.trial_flag) for a in (*args, *kwargs.values())):
            self.trial_flops += flops
        else:
            self.calls.append((len(x), flops))
        return result


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates of a forward, and the part of them that attention takes."""

    macs: float
    attention: float


def count(model, name, latent, rows=1, **where):
    """The Count of one forward, by torch's flop counter; one MAC is two FLOPs."""
    counter = flop_counter()
    with counter:
        forward(model, name, latent, rows, **where)
    by_operation = counter.get_flop_counts()["Global"]
    attention = sum(flops for op, flops in by_operation.items() if any(word in str(op) for word in ATTENTION))
    return Count(counter.get_total_flops() / 2, attention / 2)
