"""What a sampling run costs in FLOPs: every evaluation of the network, trials included."""

from torch.utils.flop_counter import FlopCounterMode

KEY = "flop_meter"


class Meter:
    """FLOPs of the network, counted by torch in every evaluation; behind any cache on the patcher."""

    def __init__(self):
        self.flops = 0
        self.rows = 0  # evaluated: two a call with guidance

    def attach(self, patcher):
        """A clone of the patcher with the meter as the innermost DIFFUSION_MODEL wrapper."""
        from comfy.patcher_extension import WrappersMP

        patcher = patcher.clone()
        patcher.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, KEY)
        patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, self._count)
        return patcher

    def _count(self, executor, x, *args, **kwargs):
        counter = FlopCounterMode(display=False)
        with counter:
            result = executor(x, *args, **kwargs)
        self.flops += counter.get_total_flops()
        self.rows += len(x)
        return result
