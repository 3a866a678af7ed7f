"""LFCache in the host's sampling loop: the guider its trials call, and when to stand aside."""

import logging
from contextlib import contextmanager

import comfy.model_base
import comfy.model_management
import torch

from ...precisecache_core.lfcache.config import MINIMUM_STEPS
from ...precisecache_core.lfcache.run import LFCacheRun
from .conditioning import UnshrinkableConditioning, boundaries_of, has_gates, open_gates, shrink_conds
from .parametrization import affine_of, noise_space, sigma_window
from .unconditional import UnconditionalFeed, functions_of_sampler

# in transformer_options while a trial runs, so that BlockCache and others can tell
TRIAL_FLAG = "precisecache_trial"

logger = logging.getLogger("precisecache")


class GuidedRun:
    """LFCacheRun plus the guider that its trials call; only records where config is None."""

    def __init__(self, config, guider, steps, args, kwargs, calibration):
        self.guider = guider
        model = guider.model_patcher.model
        sampling = guider.model_patcher.get_model_object("model_sampling")
        space = noise_space(sampling)
        window = (config.start_percent, config.end_percent) if config else (0.0, 1.0)
        against_all = config and reason_to_stand_aside(guider, steps)
        against_trials = config and reason_against_trials(model, space, config, args, kwargs)
        delta_max, warning = (None, None)
        if config and not against_all:
            delta_max, warning = calibration.delta_max(config, patch_of(model), may_try=not against_trials)
        self.cache = LFCacheRun(
            config, affine_of(sampling), space, sigma_min=float(sampling.sigma_min),
            sigma_window=sigma_window(sampling, *window), patch=patch_of(model),
            device=guider.model_patcher.load_device, delta_max=delta_max)
        self.small_conds = None
        self.small_shape = None  # of the latent they are for
        self.gated = self.ungated = None
        self.unconditional = UnconditionalFeed()
        if against_all:
            self.cache.stand_aside(against_all)
        elif against_trials:
            self.cache.do_without_trials(against_trials)
        if warning:
            self.cache.warn(warning)
            self.cache.is_scale_doubtful = True

    def denoised(self, x, timestep, model_options, seed, compute):
        """The denoised latent of one call; `compute(model_options)` asks the model."""
        def trial_model(x_small, sigma_small):
            return self._trial(x, x_small, timestep, sigma_small, model_options, seed)

        if not self.cache.decisions:
            self.cache.boundaries = boundaries_of(conds_of(self.guider))
        functions = functions_of_sampler(model_options, self.guider)
        if not functions or self.cache.is_standing_aside:
            return self.cache.denoised(x, timestep, lambda: compute(model_options), trial_model)
        self.cache.keep_companion()
        watched = self.unconditional.watching(model_options)
        denoised = self.cache.denoised(x, timestep, lambda: compute(watched), trial_model)
        if self.unconditional.follow(x, timestep, model_options, functions, self.cache, denoised):
            return denoised
        return compute(model_options)

    def _trial(self, x, x_small, timestep, sigma_small, model_options, seed):
        """The guider's denoised answer on the small latent, or None if it has none."""
        try:
            conds = self._trial_conds(x, x_small, timestep)
            with swapped_conds(self.guider, conds):
                return self.guider.predict_noise(
                    x_small, sigma_small.expand_as(timestep).to(timestep.dtype),
                    trial_options(model_options), seed)
        except comfy.model_management.InterruptProcessingException:
            raise
        except UnshrinkableConditioning as error:
            self.cache.do_without_trials(f"{error} cannot be shrunk")
        except Exception as error:
            # the full call still decides whether this run can go on; only the trials are given up
            logger.debug("PreciseCache: the trial failed", exc_info=True)
            self.cache.do_without_trials(f"the trial failed with {type(error).__name__}: {error}")
        return None

    def _trial_conds(self, x, x_small, timestep):
        if self.small_shape != x.shape:
            self.small_shape = x.shape
            factors, patch = self.cache.factors, self.cache.patch
            conds = conds_of(self.guider)
            self.small_conds = {name: shrink_conds(group, x.shape, x_small.shape, factors, patch)
                                for name, group in conds.items()}
            self.gated = {n: has_gates(g) for n, g in self.small_conds.items()}
            self.ungated = {n: open_gates(g, 0.0) for n, g in self.small_conds.items()
                            if not self.gated[n]}
        sigma = timestep.flatten()[0].item() if any(self.gated.values()) else None
        return {name: open_gates(group, sigma) if self.gated[name] else self.ungated[name]
                for name, group in self.small_conds.items()}

    def report(self, *names):
        """This run's entry of the report."""
        return self.cache.report(*names)

    def release(self):
        """Let go of every tensor."""
        self.cache.release()
        self.guider = self.small_conds = self.ungated = self.unconditional = None


def conds_of(guider):
    """The guider's processed conds by attribute; some guiders keep a second set."""
    names = [n for n in ("conds", "_uncond_conds") if isinstance(getattr(guider, n, None), dict)]
    return {name: getattr(guider, name) for name in names}


@contextmanager
def swapped_conds(guider, conds):
    """Give the guider other conds for a while, and its own back whatever happens."""
    originals = {name: getattr(guider, name) for name in conds}
    try:
        for name, group in conds.items():
            setattr(guider, name, group)
        yield
    finally:
        for name, group in originals.items():
            setattr(guider, name, group)


def trial_options(model_options):
    """The sampler's model options for a trial.

    Without pre- and post-cfg functions, which keep state across steps, without functions
    around the conds, which may switch at a noise level (a trial has another), and without
    context windows, which a small latent does not need.
    """
    left_out = ("sampler_pre_cfg_function", "sampler_post_cfg_function", "sampler_calc_cond_batch_function",
                "context_handler")
    options = {k: v for k, v in model_options.items() if k not in left_out}
    options["transformer_options"] = {**options.get("transformer_options", {}), TRIAL_FLAG: True}
    return options


def patch_of(model):
    """The model's patch over (T, H, W) in latent positions; 1, 2, 2 where it does not say."""
    patch = getattr(getattr(model, "diffusion_model", None), "patch_size", None)
    if isinstance(patch, int):
        return (1, patch, patch)
    if isinstance(patch, (tuple, list)) and len(patch) in (2, 3) and all(isinstance(p, int) for p in patch):
        return (1, *patch)[-3:]
    return (1, 2, 2)


def reason_to_stand_aside(guider, steps):
    """Why this run must be computed in full, or None."""
    if steps < MINIMUM_STEPS:
        return f"{steps} steps are too few to skip any (few-step and distilled models gain nothing)"
    if "easycache" in guider.model_options.get("transformer_options", {}):
        return "EasyCache or LazyCache is on the same model, and two step caches spoil each other"
    return None


def reason_against_trials(model, space, config, args, kwargs):
    """Why a small latent would tell nothing about this run, or None."""
    shapes = kwargs.get("latent_shapes")
    if shapes is not None and len(shapes) > 1:
        return "packed latents (audio and video) cannot be shrunk"
    if space is None and config.trial == "snr_matched":
        return "this model's input is not noise plus data"
    mask = kwargs.get("denoise_mask", args[0] if args else None)
    keeps_clean = type(model).scale_latent_inpaint is not comfy.model_base.BaseModel.scale_latent_inpaint
    if isinstance(mask, torch.Tensor) and keeps_clean:
        return "this model keeps clean frames inside the noised latent"
    return None
