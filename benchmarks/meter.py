"""What a sampling run costs in FLOPs: every evaluation of the network, trials included."""

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.tiny_host import pack_module

KEY = "flop_meter"


def fused_attention_flops(query, key, value, *args, out_shape=None, **kwargs):
    """FLOPs of fused attention on a CPU, which torch's counter leaves out, from the shapes."""
    return sdpa_flop_count(query, key, value)


FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused_attention_flops}


def flop_counter():
    """torch's counter, with the operations it leaves out."""
    return FlopCounterMode(display=False, custom_mapping=FORMULAS)


class Meter:
    """FLOPs of the network, counted by torch in every evaluation; behind any cache on the patcher."""

    def __init__(self):
        self.trial_flag = pack_module("nodes.host.lfcache").TRIAL_FLAG
        self.flops = 0
        self.trial_flops = 0  # those of them that were trials
        self.rows = 0  # evaluated: two a call with guidance

    def attach(self, patcher):
        """A clone of the patcher with the meter as the innermost DIFFUSION_MODEL wrapper."""
        from comfy.patcher_extension import WrappersMP

        patcher = patcher.clone()
        patcher.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, KEY)
        patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self._count)
        return patcher

    def _count(self, executor, x, *args, **kwargs):
        counter = flop_counter()
        with counter:
            result = executor(x, *args, **kwargs)
        self.flops += counter.get_total_flops()
        if any(isinstance(a, dict) and a.get(self.trial_flag) for a in (*args, *kwargs.values())):
            self.trial_flops += counter.get_total_flops()
        self.rows += len(x)
        return result
