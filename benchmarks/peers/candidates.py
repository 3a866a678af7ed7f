"""What was tried for LFCache beyond the method as it is, one candidate a class or function.

Each is a context in which LFCache in the host works differently; `benchmarks.methods` gives it
rows, so that its points can be set against LFCache's own curve.
"""

import math
from contextlib import contextmanager
from unittest import mock

from testkit.tiny_host import pack_module


@contextmanager
def reusing(make_cache):
    """Predictions are kept and reused by `make_cache(PredictionCache)`, a subclass of it."""
    run = pack_module("precisecache_core.lfcache.run")
    with mock.patch.object(run, "PredictionCache", make_cache(run.PredictionCache)):
        yield


def undamped(cache):
    """fitted with one gain, however far the trend is taken."""
    class Undamped(cache):
        def predict(self, x, sigma):
            if self.gain is None or self.previous is None:
                return super().predict(x, sigma)
            distance = (sigma - self.sigma) / (self.sigma - self.previous_sigma)
            return self.current + self.gain.to(x.dtype) * distance * (self.current - self.previous)

    return Undamped


def over_log_snr(cache):
    """fitted over log-SNR instead of sigma (flow models)."""
    def log_snr(sigma):
        return math.log((1 - sigma + 1e-3) / (sigma + 1e-3))

    class OverLogSNR(cache):
        def store(self, x, sigma, prediction):
            super().store(x, log_snr(sigma), prediction)

        def predict(self, x, sigma):
            return super().predict(x, log_snr(sigma))

    return OverLogSNR


def of_noise(cache):
    """fitted on the estimate of the noise, x + (1 - sigma) F, instead of F (flow models)."""
    class OfNoise(cache):
        def store(self, x, sigma, prediction):
            super().store(x, sigma, x + (1 - sigma) * prediction)

        def predict(self, x, sigma):
            return (super().predict(x, sigma) - x) / max(1 - sigma, 0.01)

    return OfNoise


def second_order(cache):
    """Slope and curvature from three computed predictions, each with a fitted gain."""
    class SecondOrder(cache):
        def __init__(self, *args):
            super().__init__(*args)
            self.history, self.gains = [], None

        def _directions(self, sigma):
            (s2, p2), (s1, p1), (s0, p0) = self.history[-3:]
            slope, before = (p0 - p1) / (s0 - s1), (p1 - p2) / (s1 - s2)
            return slope * (sigma - s0), (slope - before) / (s0 - s2) * (sigma - s0) * (sigma - s1)

        def store(self, x, sigma, prediction):
            if len(self.history) == 3:
                change = prediction - self.history[-1][1]
                one, two = self._directions(sigma)
                # the 2 x 2 normal equations of change = g one + h two
                a, b, c = (one * one).sum(), (one * two).sum(), (two * two).sum()
                p, q = (one * change).sum(), (two * change).sum()
                scale = (a * c - b * b).clamp_min(1e-6 * a * c + 1e-12)
                self.gains = [((c * p - b * q) / scale).clamp(-2, 2), ((a * q - b * p) / scale).clamp(-2, 2)]
            self.history = [h for h in self.history if h[0] != sigma][-2:] + [(sigma, prediction)]
            super().store(x, sigma, prediction)

        def predict(self, x, sigma):
            if self.gains is None:
                return super().predict(x, sigma)
            return self.current + sum(g * d for g, d in zip(self.gains, self._directions(sigma)))

    return SecondOrder


@contextmanager
def conditional_trial():
    """Trials without guidance: half as dear where cond and uncond are two rows."""
    guided = pack_module("nodes.host.lfcache").GuidedRun
    trial = guided._trial

    def unguided(self, *args):
        cfg = self.guider.cfg
        self.guider.cfg = 1.0
        try:
            return trial(self, *args)
        finally:
            self.guider.cfg = cfg

    with mock.patch.object(guided, "_trial", unguided):
        yield


def attach_reused_guidance(patcher, warmup=3):
    """After the warm-up only every second computed call computes the unconditional branch.

    The others take the last difference between the branches, as a prediction. Source:
    FasterCache, arXiv 2410.19355 (its CFG-Cache also weighs frequency bands).
    """
    from benchmarks.peers.run_state import attach_run

    flag = pack_module("nodes.host.lfcache").TRIAL_FLAG

    def open_run(model, options, steps):
        known = {"calls": 0, "difference": None}

        def calc_cond_batch(executor, model, conds, x, timestep, options):
            if options["transformer_options"].get(flag) or len(conds) != 2 or conds[1] is None:
                return executor(model, conds, x, timestep, options)
            known["calls"] += 1
            sigma = timestep.reshape(-1, *[1] * (x.ndim - 1))
            if known["calls"] <= warmup or (known["calls"] - warmup) % 2 == 0:
                cond, uncond = executor(model, conds, x, timestep, options)
                known["difference"] = (cond - uncond) / sigma
                return [cond, uncond]
            cond, _ = executor(model, [conds[0], None], x, timestep, options)
            return [cond, cond - known["difference"] * sigma]

        wrappers = options.setdefault("wrappers", {}).setdefault("calc_cond_batch", {})
        options["wrappers"]["calc_cond_batch"] = {**wrappers, "reused_guidance": [calc_cond_batch]}

    return attach_run(patcher, "reused_guidance", open_run)


@contextmanager
def weighing(exponent):
    """LFD times sigma to this exponent: above 0 early calls count for more, below it late ones."""
    run = pack_module("precisecache_core.lfcache.run").LFCacheRun
    measure = run._measure

    def weighed(self, sigma, trial_prediction):
        level, lfd, is_model_finite = measure(self, sigma, trial_prediction)
        return level, lfd and lfd * level**exponent, is_model_finite

    with mock.patch.object(run, "_measure", weighed):
        yield


@contextmanager
def against_forecast():
    """LFD of the trial against the extrapolated trials instead of against the last computed one."""
    module = pack_module("precisecache_core.lfcache.run")
    run, make_trial = module.LFCacheRun, module.make_trial
    measure, new_reference, begin = run._measure, run._new_reference, run._begin
    last = {}

    def trial_of(x, *args):
        last["trial"] = make_trial(x, *args)
        return last["trial"]

    def _begin(self, *given):
        begin(self, *given)
        self.small = module.PredictionCache(self.config.reuse)

    def _measure(self, sigma, trial_prediction):
        self.level = sigma.item()
        if not self.controller.is_warmup and self.small.current is not None:
            self._reference = self.small.predict(last["trial"].pooled, self.level)
        return measure(self, sigma, trial_prediction)

    def _new_reference(self, trial_prediction, prediction):
        self.small.store(last["trial"].pooled, self.level, trial_prediction)
        return new_reference(self, trial_prediction, prediction)

    with mock.patch.multiple(run, _begin=_begin, _measure=_measure, _new_reference=_new_reference), \
            mock.patch.object(module, "make_trial", trial_of):
        yield


@contextmanager
def calibrated(is_extrapolated):
    """The trial's LFD times what the true one was over the trial's at the last computed call.

    is_extrapolated: take the geometric mean of that and of the LFD extrapolated from computed calls.
    """
    run = pack_module("precisecache_core.lfcache.run").LFCacheRun
    measure, begin, compare = run._measure, run._begin, run._compare

    def _begin(self, *given):
        begin(self, *given)
        self.told = self.ratio = None

    def _compare(self, sigma, lfd, prediction):
        compare(self, sigma, lfd, prediction)
        if self.told:
            self.ratio = float(self._true) / self.told

    def _measure(self, sigma, trial_prediction):
        level, lfd, is_model_finite = measure(self, sigma, trial_prediction)
        self.told = lfd
        if lfd is None or self.ratio is None or self.controller.is_warmup:
            return level, lfd, is_model_finite
        self.controller.delta_max = self._extrapolation.largest()
        true = lfd * self.ratio
        return level, math.sqrt(true * self._extrapolation.at(level)) if is_extrapolated else true, is_model_finite

    with mock.patch.multiple(run, _begin=_begin, _compare=_compare, _measure=_measure):
        yield


@contextmanager
def deciding(is_reused):
    """After the warm-up `is_reused(controller, lfd)` decides, in place of the accumulated error."""
    controller = pack_module("precisecache_core.lfcache.controller").LFCacheController
    decide = controller.decide

    def decided(self, lfd):
        is_warmup = self.is_warmup
        decide(self, lfd)  # keeps count and delta_max
        return not is_warmup and lfd is not None and is_reused(self, lfd)

    with mock.patch.object(controller, "decide", decided):
        yield


def not_accumulated(controller, lfd):
    """Reuse while this call's LFD alone is under the threshold."""
    return lfd < controller.threshold


def by_power(share, exponent, steps):
    """A fixed pattern instead of the LFD: gaps between the computed calls grow as a power of their number."""
    def is_reused(controller, lfd):
        warmup = controller.warmup
        later = round(share * steps) - warmup
        places = {round(warmup - 1 + (steps - warmup) * (j / (later + 0.5)) ** exponent) for j in range(1, later + 1)}
        return controller.calls - 1 not in places

    return is_reused
