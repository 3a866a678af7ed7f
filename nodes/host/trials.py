"""Trials in the host: the sampler's own guider runs on a small latent."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch

from ...precisecache_core.lfcache.latent.trial import Trial
from ...precisecache_core.lfcache.run import LFCacheRun
from .conditioning import UnshrinkableConditioning, has_gates, open_gates, shrink_conds

# set in transformer_options while a trial runs, so that BlockCache and other packs can recognise it
TRIAL_FLAG = "precisecache_trial"

# left out of a trial: functions that may keep state across steps or switch at a noise level (a trial has
# a different one), and context windows, which a small latent does not need
_LEFT_OUT = (
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "context_handler",
)

logger = logging.getLogger("precisecache")


class TrialGuider:
    """Runs the guider on small latents; shrinks its conditioning once for each latent shape."""

    def __init__(self, guider: Any) -> None:
        self.guider = guider
        self._shape: torch.Size | None = None  # of the full latent for which the conds below were shrunk
        self._conds: dict[str, dict] = {}
        self._is_gated: dict[str, bool] = {}
        self._ungated: dict[str, dict] = {}  # conds without gates, equal for every sigma

    def ask(
        self,
        run: LFCacheRun,
        trial: Trial,
        x: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict,
        seed: int | None,
    ) -> torch.Tensor | None:
        """The guider's denoised latent of a trial, in the shape of `trial.x`; None if the guider cannot run on it.

        run: does without trials after a failure. x, timestep: the full latent and noise level of the call.
        model_options, seed: arguments of the guider's `predict_noise`.
        ComfyUI's interrupt passes through.
        """
        try:
            level = timestep if trial.level is None else trial.level
            conds = self._conds_for(trial, x, level)
            with swapped_conds(self.guider, conds):
                return self.guider.predict_noise(
                    trial.x, trial.sigma.expand_as(timestep).to(timestep.dtype), trial_options(model_options), seed
                )
        except comfy.model_management.InterruptProcessingException:
            raise
        except UnshrinkableConditioning as error:
            run.do_without_trials(f"{error} cannot be shrunk")
        except Exception as error:
            # only the trials are given up: if the full call fails too, the run fails
            logger.debug("PreciseCache: the trial failed", exc_info=True)
            run.do_without_trials(f"the trial failed with {type(error).__name__}: {error}")
        return None

    def _conds_for(self, trial: Trial, x: torch.Tensor, level: torch.Tensor) -> dict[str, dict]:
        if self._shape != x.shape:
            self._shape = x.shape
            self._conds = {
                name: shrink_conds(group, x.shape, trial.x.shape, trial.factors, trial.patch)
                for name, group in conds_of(self.guider).items()
            }
            self._is_gated = {name: has_gates(group) for name, group in self._conds.items()}
            self._ungated = {
                name: open_gates(group, 0.0) for name, group in self._conds.items() if not self._is_gated[name]
            }
        sigma = level.flatten()[0].item() if any(self._is_gated.values()) else 0.0
        return {
            name: open_gates(group, sigma) if self._is_gated[name] else self._ungated[name]
            for name, group in self._conds.items()
        }


def conds_of(guider: Any) -> dict[str, dict]:
    """The guider's processed conds, {attribute: conds}; some guiders have a second set."""
    names = [n for n in ("conds", "_uncond_conds") if isinstance(getattr(guider, n, None), dict)]
    return {name: getattr(guider, name) for name in names}


@contextmanager
def swapped_conds(guider: Any, conds: dict[str, dict]) -> Iterator[None]:
    """A context in which the guider has other conds; it gets its own back, even after an error.

    conds: {attribute: conds}, as from `conds_of`.
    """
    originals = {name: getattr(guider, name) for name in conds}
    try:
        for name, group in conds.items():
            setattr(guider, name, group)
        yield
    finally:
        for name, group in originals.items():
            setattr(guider, name, group)


def trial_options(model_options: dict) -> dict:
    """A copy of the model options for a trial, with TRIAL_FLAG set and without what a trial leaves out."""
    options = {k: v for k, v in model_options.items() if k not in _LEFT_OUT}
    options["transformer_options"] = {**options.get("transformer_options", {}), TRIAL_FLAG: True}
    return options
