"""Seconds of every call, of the model in it and of every trial, measured by wrappers on a MODEL."""

import time
from contextlib import contextmanager, nullcontext

import torch

KEY = "timers"


class Timers:
    """Timed spans of one run: `call`, a whole call; `compute`, the model in a computed call; `trial`.

    The guidance on the small latent is no part of the trial's span: it counts as the cache's own work.

    is_cuda: measure with CUDA events; else with `clock`.
    """

    def __init__(self, is_cuda=False, clock=time.perf_counter):
        self.is_cuda = is_cuda
        self.clock = clock
        self.spans = {"call": [], "compute": [], "trial": []}

    def attach(self, patcher):
        """A clone of the patcher that is timed; caches must be attached before."""
        from comfy.patcher_extension import WrappersMP
        from PreciseCache.nodes.host.trials import TRIAL_FLAG

        def timed(name):
            def wrapper(executor, *args, **kwargs):
                with self.span(name):
                    return executor(*args, **kwargs)

            return wrapper

        def branches(executor, model, conds, x, timestep, options):
            with self.span("trial") if options["transformer_options"].get(TRIAL_FLAG) else nullcontext():
                return executor(model, conds, x, timestep, options)

        patcher = patcher.clone()
        # the host calls wrappers in the order of this dictionary, the first one outside
        caches = patcher.wrappers.get(WrappersMP.PREDICT_NOISE, {})
        patcher.wrappers[WrappersMP.PREDICT_NOISE] = {
            f"{KEY} of calls": [timed("call")],
            **caches,
            f"{KEY} of the model": [timed("compute")],
        }
        patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, branches)
        return patcher

    @contextmanager
    def span(self, name):
        start = self._mark()
        try:
            yield
        finally:
            self.spans[name].append((start, self._mark()))

    def _mark(self):
        if not self.is_cuda:
            return self.clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, name):
        """The length of every span of this name, in order; the device must have finished."""
        if self.is_cuda:
            return [start.elapsed_time(end) / 1000 for start, end in self.spans[name]]
        return [end - start for start, end in self.spans[name]]
