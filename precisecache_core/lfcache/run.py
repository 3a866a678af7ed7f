"""LFCache over one sampling run: trial, decision, reuse and the record of it all."""

import logging
import math

import torch

from ..memory import is_out_of_memory
from ..record.rank import rank_correlation
from ..record.reasons import why_nothing_was_reused
from ..record.stopwatch import Stopwatch
from .config import LFCacheConfig
from .controller import LFCacheController
from .extrapolation import LFDExtrapolation
from .frequency import low_band_weights, low_frequency_difference
from .reuse import PredictionCache
from .shrink import fit_factors, shrink_latent
from .trial import make_trial

# after so many trials in a row without a finite LFD no more are made
FAULTS = 3

logger = logging.getLogger("precisecache")


class LFCacheRun:
    """State of LFCache for one run of a sampler; make a new one for every run.

    `denoised(x, sigma, model, trial_model)` stands where the model would be called. The
    caller brings the model's own arithmetic:

    config: an LFCacheConfig, or None to compute every call and keep only the record.
    affine(sigma): 0-dim tensors (a, b) with denoised = a x + b prediction.
    space, sigma_min: how noise enters x (see `trial`), and the model's smallest sigma.
    sigma_window: (high, low), the noise levels between which reuse is allowed.
    patch: the model's patch over (T, H, W), below which no trial latent may shrink.
    delta_max: of an earlier stage of the same sampling: takes the warm-up's place (see `controller`).
    boundaries: noise levels at which something else than the latent changes (the range of a prompt
        or a ControlNet, a keyframe of a LoRA): what was computed before stands for no call behind.

    Where no trial can be made, LFDs are extrapolated from the computed calls (`do_without_trials`).
    """

    def __init__(self, config, affine, space, sigma_min=0.0, sigma_window=(math.inf, 0.0),
                 patch=(1, 2, 2), boundaries=(), device="cpu", delta_max=None):
        self.config = config or LFCacheConfig(alpha=0.0)
        self.affine = affine
        self.space = space
        self.sigma_min = sigma_min
        self.sigma_high, self.sigma_low = sigma_window
        self.patch = patch
        self.boundaries = boundaries
        self.stopwatch = Stopwatch(device)
        self.warnings = []
        self.decisions = []
        self.sigmas = []
        self.lfds = []
        self.trials = 0
        self.is_standing_aside = False
        self.is_scale_doubtful = False  # a caller has said how to get a better scale for alpha
        self.is_extrapolating = False
        self._may_try = True  # whether trials make sense at all, whatever the latent's size
        self.has_companion = False
        self.companion_denoised = None
        self.peak_bytes = 0
        self._begin(None, delta_max)
        if config is None:
            self.is_standing_aside = True

    def _begin(self, x, delta_max=None):
        """Start from a blank state, for the first call or after a change of shape."""
        self.controller = LFCacheController(
            self.config.alpha, self.config.warmup, self.config.is_every_call_tried, delta_max)
        self.is_extrapolating = not self._may_try
        self._forget()
        self._reference = None
        self._agreement = []  # (LFD foretold, true LFD on the device), one pair per computed call
        self._true = None  # the last true LFD, on the device
        self._extrapolation = LFDExtrapolation(self.config.warmup - 1)
        self._faults = 0
        self._weights = {}
        self._signature = None if x is None else (x.shape, x.dtype, x.device)
        self.factors = None
        if x is None:
            return
        if x.ndim not in (4, 5):
            self._extrapolate_from_here(f"a latent of {x.ndim} dimensions cannot be shrunk")
            return
        self.factors = fit_factors(x.shape, self.config.factor_t, self.config.factor_hw, self.patch)
        if self.config.factor_t == self.config.factor_hw == 1:
            self._extrapolate_from_here("factor_t and factor_hw are 1")
        elif self.factors == (1, 1, 1):
            self._extrapolate_from_here(f"a latent of {tuple(x.shape)} is too small to shrink")

    def warn(self, text):
        """Say something once: into the log and into the report."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("PreciseCache: %s", text)

    def stand_aside(self, reason):
        """Compute every further call of this run as if LFCache were not there, and say why."""
        self.is_standing_aside = True
        self.release()
        self.warn(f"{reason}: computing every call")

    def do_without_trials(self, reason):
        """Decide from now on by LFDs extrapolated from the computed calls, and say why."""
        self._may_try = False
        self._extrapolate_from_here(reason)

    def _extrapolate_from_here(self, reason):
        if self.is_extrapolating:
            return
        self.is_extrapolating = True
        self._reference = None
        if self.decisions:  # trials and calls differ in size, and so in their LFDs
            ratio = self.controller.rescale(None if self.controller.is_warmup else self._extrapolation.largest())
            self.lfds = [None if lfd is None or ratio is None else lfd * ratio for lfd in self.lfds]
        self.warn(f"{reason}: reuse is decided without trials")

    def keep_companion(self):
        """Reuse another prediction beside the guided one from now on, as the unconditional one.

        Its denoised latent goes in with `store_companion` after a computed call, and is
        `companion_denoised` after a reused one. Calls before it was first stored are computed.
        """
        if not self.has_companion:
            self.has_companion = True
            self._companion = self._new_cache()

    def store_companion(self, x, sigma, denoised):
        """Keep the companion's denoised latent of the call just computed; arguments as of `denoised`."""
        if self.is_standing_aside or self.sigmas[-1] <= 0:
            return
        sigma, level = sigma.reshape(-1)[0], float(self.sigmas[-1])
        a, b = self.affine(sigma)
        try:
            self._companion.store(x, level, ((denoised - a * x) / b).to(x.dtype))
        except (RuntimeError, MemoryError) as error:
            self._stand_aside_if_out_of_memory(error, "no memory for a second prediction")
        self.peak_bytes = max(self.peak_bytes, self.cache_bytes)

    def revoke(self):
        """The last call was computed after all, by the caller: what was reused could not be used."""
        self.decisions[-1] = "C"

    def _stand_aside_if_out_of_memory(self, error, reason):
        """For use in an except clause: anything else goes on as it came."""
        if not is_out_of_memory(error):
            raise error
        self.stand_aside(reason)

    def release(self):
        """Let go of every prediction, however long somebody (a traceback) holds this object."""
        self._forget()
        self._reference = None

    def denoised(self, x, sigma, model, trial_model):
        """The denoised latent of this call, computed by `model` or from the cache.

        x: noised latent, (B, C, T, H, W) or (B, C, H, W); never written to.
        sigma: its noise level, a tensor with one element.
        model(): computes the full call and returns denoised, in x's shape.
        trial_model(x_small, sigma_small): the same guided model on a small latent; returns
            its denoised latent, or None if no trial could be made.
        One device read-back per call, and one more where the window is not the whole
        schedule, or without trials after a computed call.
        """
        with self.stopwatch.span("call"):
            return self._denoised(x, sigma.reshape(-1)[0], model, trial_model)

    def _denoised(self, x, sigma, model, trial_model):
        if not self.is_standing_aside and self._signature != (x.shape, x.dtype, x.device):
            if self._signature is not None:
                self.warn("the latent changed in mid-run: the warm-up starts again")
            self._begin(x, self.controller.delta_max if self._signature is None else None)
        if self.is_standing_aside:
            return self._record(sigma, None, self._compute(model))
        if (self.sigma_high, self.sigma_low) != (math.inf, 0.0):
            level = sigma.item()
            if not self.sigma_low <= level <= self.sigma_high:
                return self._record(level, None, self._compute(model))

        if not self.is_extrapolating and not self.controller.needs_trial and self._has_all(x):
            level = sigma.item()
            if level > 0 and not self._is_beyond_boundary(level):
                self.controller.skip_trial()
                return self._reuse(x, sigma, level, None, model)
        level, lfd, trial_prediction = self._foretell(x, sigma, trial_model)
        may_reuse = self._has_all(x) and not self._is_beyond_boundary(level)
        if self.controller.decide(lfd if may_reuse or self.controller.is_warmup else None):
            return self._reuse(x, sigma, level, lfd, model)
        denoised = self._compute(model)
        if level > 0 and denoised.shape == x.shape:
            try:
                self._keep(x, sigma, level, lfd, denoised, trial_prediction)
            except (RuntimeError, MemoryError) as error:
                self._stand_aside_if_out_of_memory(error, "no memory for a prediction")
        return self._record(level, lfd, denoised)

    def _has_all(self, x):
        """Whether everything that a reuse of this call needs is there."""
        return self.cache.matches(x) and (not self.has_companion or self._companion.matches(x))

    def _is_beyond_boundary(self, level):
        """Whether a boundary lies between what was last computed and this noise level."""
        if not self.boundaries or self.cache.sigma is None:
            return False
        low, high = sorted((level, self.cache.sigma))
        return low < high and any(low <= b <= high for b in self.boundaries)

    def _foretell(self, x, sigma, trial_model):
        """(sigma, LFD of this call, the trial's prediction); None for what there is not."""
        if not self.is_extrapolating:
            try:
                trial_prediction = self._trial(x, sigma, trial_model)
                if trial_prediction is not None:
                    return self._tried(sigma, trial_prediction)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.do_without_trials("no memory for a trial")
        return *self._extrapolate(sigma), None

    def _keep(self, x, sigma, level, lfd, denoised, trial_prediction):
        """Store what was computed, and compare it with what was stored before."""
        a, b = self.affine(sigma)
        prediction = ((denoised - a * x) / b).to(x.dtype)
        self._compare(level, lfd if trial_prediction is not None else None, prediction)
        self.cache.store(x, level, prediction)
        self._reference = self._new_reference(trial_prediction, prediction)
        self.peak_bytes = max(self.peak_bytes, self.cache_bytes)

    def _tried(self, sigma, trial_prediction):
        """(sigma, LFD, the trial's prediction); gives up trials that never give anything finite."""
        level, lfd, is_model_finite = self._measure(sigma, trial_prediction)
        if lfd is not None and not math.isfinite(lfd):
            self.warn("a low-frequency difference was not finite: that call was computed")
            self._faults += is_model_finite
            if self._faults == FAULTS:
                self.do_without_trials(f"{FAULTS} trials in a row, or what they are compared with, were not finite")
        elif lfd is not None:
            self._faults = 0
        return level, lfd, trial_prediction

    def _reuse(self, x, sigma, level, lfd, model):
        a, b = self.affine(sigma)
        try:
            denoised = a * x + b * self.cache.predict(x, level)
            if self.has_companion:
                self.companion_denoised = a * x + b * self._companion.predict(x, level)
        except (RuntimeError, MemoryError) as error:
            self._stand_aside_if_out_of_memory(error, "no memory to reuse a prediction")
            return self._record(level, lfd, self._compute(model))
        return self._record(level, lfd, denoised, "R")

    def _compute(self, model):
        with self.stopwatch.span("compute"):
            return model()

    def _trial(self, x, sigma, trial_model):
        """The trial's prediction at the full sigma, or None where none can be made."""
        trial = make_trial(x, sigma, self.factors, self.space, self.sigma_min,
                           self.config.trial == "snr_matched", self.patch)
        with self.stopwatch.span("trial"):
            small = trial_model(trial.x, trial.sigma)
        if small is None or small.shape != trial.x.shape:
            self.do_without_trials("the model cannot be tried on a small latent")
            return None
        self.trials += 1
        return trial.prediction(small, self.affine(sigma))

    def _band(self, prediction):
        """Low-band weights for this height and width, built once a run."""
        key = tuple(prediction.shape[-2:])
        if key not in self._weights:
            self._weights[key] = low_band_weights(*key, self.config.cutoff, prediction.device)
        return self._weights[key]

    def _difference(self, current, reference):
        if current.ndim not in (4, 5):  # packed latents have no height and width
            return torch.linalg.vector_norm(current.float() - reference.float())
        return low_frequency_difference(current, reference, self.config.cutoff, self._band(current))

    def _measure(self, sigma, trial_prediction):
        """(sigma, LFD, whether the model's last answer was finite), in the call's one read-back.

        The LFD is None without a reference, and not finite after an answer that was not.
        """
        if self._reference is None:
            return sigma.float().item(), None, True
        lfd = self._difference(trial_prediction, self._reference)
        level, lfd, true = torch.stack((sigma.to(lfd.device, torch.float32), lfd, self._true.to(lfd.device))).tolist()
        if math.isfinite(true):
            return level, lfd, True
        self._forget()  # a trial cannot tell that the model's last answer was not finite, the true LFD can
        return level, true, False

    def _extrapolate(self, sigma):
        """(sigma, LFD) as floats; LFD None where it cannot be told."""
        level = sigma.item()
        if self.controller.is_warmup:
            return level, None
        if self.controller.delta_max is None:
            self.controller.delta_max = self._extrapolation.largest()
        lfd = self._extrapolation.at(level)
        if lfd is not None and not math.isfinite(lfd):
            self.warn("a low-frequency difference was not finite: that call was computed")
            self._forget()
        return level, lfd

    def _forget(self):
        """Predictions that are not finite spoil every trend that goes through them: begin with the next."""
        self.cache = self._new_cache()
        self._companion = self._new_cache() if self.has_companion else None
        self.companion_denoised = None
        self._previous = None  # last computed prediction where the cache holds something else

    def _new_cache(self):
        return PredictionCache(self.config.reuse, self.config.cache_device)

    def _new_reference(self, trial_prediction, prediction):
        if trial_prediction is None:
            return None
        if self.config.reference == "trial":
            return trial_prediction
        return shrink_latent(prediction, self.factors, self.patch)

    def _compare(self, sigma, lfd, prediction):
        """Keep the true LFD against the previous computed call, and the one foretold beside it."""
        previous = self._previous if self.config.reuse == "residual" else self.cache.current
        if previous is None:
            self._true = (prediction.float() * 0).sum()  # says at least whether the prediction is finite
            self._extrapolation.store(sigma, None)
        else:
            self._true = self._difference(prediction, previous.to(prediction.device))
            self._extrapolation.store(sigma, self._true)
            if lfd is not None:
                self._agreement.append((lfd, self._true))
        if self.config.reuse == "residual":
            self._previous = prediction

    def _record(self, sigma, lfd, denoised, decision="C"):
        self.decisions.append(decision)
        self.sigmas.append(sigma)
        self.lfds.append(lfd)
        return denoised

    @property
    def cache_bytes(self):
        """Bytes of predictions held now."""
        caches = [self.cache, self._companion] if self._companion else [self.cache]
        held = [self._previous, *(t for cache in caches for t in (cache.current, cache.previous))]
        return sum({id(t): t.nbytes for t in held if t is not None}.values())

    @property
    def trial_agreement(self):
        """Spearman correlation of the LFDs foretold with the true ones; None under four pairs."""
        true = torch.stack([t for _, t in self._agreement]).tolist() if self._agreement else []
        return rank_correlation([lfd for lfd, _ in self._agreement], true)

    def sampling(self):
        """Context that times the whole run."""
        return self.stopwatch.span("sampling")

    def report(self, model, latent_shape, steps):
        """This run's entry of the report (see `report`); reads the device, so call it after the run."""
        decisions = "".join(self.decisions)
        agreement = self.trial_agreement
        if not self.is_standing_aside and (reason := why_nothing_was_reused(
                decisions, self.controller, self.is_scale_doubtful)):
            self.warn(reason)
        return {
            "model": model,
            "latent_shape": list(latent_shape),
            "steps": steps,
            "calls": len(decisions),
            "computed": decisions.count("C"),
            "reused": decisions.count("R"),
            "trials": self.trials,
            "decisions": decisions,
            "sigmas": [float(s) for s in self.sigmas],
            "lfd": list(self.lfds),
            "alpha": self.config.alpha,
            "delta_max": self.controller.delta_max,
            "threshold": self.controller.threshold,
            "trial_agreement": agreement,
            "seconds": {n: self.stopwatch.seconds(n) for n in ("sampling", "compute", "trial")},
            "cache_bytes": {"lfcache": self.peak_bytes, "blockcache": 0},
            "blockcache": None,
            "warnings": list(self.warnings),
        }
