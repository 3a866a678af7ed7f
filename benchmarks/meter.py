"""What a sampling run costs in FLOPs: every evaluation of the network, trials included."""

from collections import Counter

import torch
from torch.utils.flop_counter import FlopCounterMode

KEY = "flop_meter"


class Meter:
    """Counts network evaluations by input shape, behind any cache on the same patcher."""

    def __init__(self):
        self.rows = Counter()  # shape of one row -> rows evaluated

    def attach(self, patcher):
        """A clone of the patcher with the meter as the innermost DIFFUSION_MODEL wrapper."""
        from comfy.patcher_extension import WrappersMP

        patcher = patcher.clone()
        patcher.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, KEY)
        patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self._count)
        return patcher

    def _count(self, executor, x, *args, **kwargs):
        self.rows[tuple(x.shape[1:])] += x.shape[0]
        return executor(x, *args, **kwargs)

    def flops(self, price):
        """Total FLOPs; `price(shape)` gives those of one row."""
        return sum(count * price(shape) for shape, count in self.rows.items())


class PriceList:
    """FLOPs of one row of the network by latent shape, counted by torch on a real evaluation."""

    def __init__(self, network, context):
        self.network = network
        self.context = context
        self.known = {}

    def __call__(self, shape):
        if shape not in self.known:
            counter = FlopCounterMode(display=False)
            with torch.no_grad(), counter:
                self.network(torch.zeros(1, *shape), torch.tensor([500.0]), self.context)
            self.known[shape] = counter.get_total_flops()
        return self.known[shape]
