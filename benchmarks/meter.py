"""What a sampling run costs in FLOPs: every evaluation of the network, trials included."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from testkit.full_size import forward

KEY = "flop_meter"
ATTENTION = ("bmm", "scaled_dot_product")


def fused_attention_flops(query, key, value, *args, out_shape=None, **kwargs):
    """FLOPs of fused attention on a CPU, which torch's counter leaves out, from the shapes."""
    return sdpa_flop_count(query, key, value)


FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused_attention_flops}


def flop_counter():
    """torch's counter, with the operations it leaves out."""
    return FlopCounterMode(display=False, custom_mapping=FORMULAS)


class Meter:
    """FLOPs of the network, counted by torch in every evaluation; behind any cache on the patcher.

    known: FLOPs by shape of the network's input, shared by runs in which an evaluation is
        always a whole one, so that each shape is counted once; None counts every evaluation.
    """

    def __init__(self, known=None):
        from PreciseCache.nodes.host.trials import TRIAL_FLAG

        self.trial_flag = TRIAL_FLAG
        self.known = known
        self.calls = []  # (rows, FLOPs) of every evaluation that is no trial
        self.trial_flops = 0

    @property
    def flops(self):
        """Of all evaluations, trials included."""
        return self.trial_flops + sum(flops for _, flops in self.calls)

    @property
    def rows(self):
        """Evaluated by the network in calls; two a call with guidance."""
        return sum(rows for rows, _ in self.calls)

    def computed(self, row_flops):
        """How many rows' worth of a full evaluation, `row_flops`, the calls came to, each rounded to rows."""
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
    """Multiply-accumulates of a forward, and those of them that attention takes."""

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
