"""What a sampler that goes on where another stopped takes over from it (Wan2.2's two experts)."""

from typing import Any

import torch

from ...precisecache_core.lfcache.config import LFCacheConfig
from ...precisecache_core.lfcache.shrink import fit_factors
from . import reports

# settings in which two runs must agree for their LFDs to be of one scale
_SCALE = ("trial", "reference", "factor_t", "factor_hw", "cutoff")


class Calibration:
    """The scale of LFDs carried over from an earlier sampler of the same latent, where there is one.

    attachment: of the model that is sampled now. The earlier stage is that of its `calibrate_from`
        or, where this sampler goes on, of the same MODEL sampled before.
    noise: what this sampler adds to its latent; a stage that goes on adds none.
    """

    def __init__(self, attachment: Any, noise: torch.Tensor) -> None:
        self.is_later_stage = isinstance(noise, torch.Tensor) and noise.device.type == "cpu" and not noise.any()
        self.is_asked_for = attachment.earlier is not None
        self.earlier = attachment.earlier or (attachment if self.is_later_stage else None)
        self.shape = noise.shape

    def delta_max(
        self, config: LFCacheConfig, patch: tuple[int, int, int], may_try: bool
    ) -> tuple[float | None, str | None]:
        """(delta_max of the earlier stage or None, what to warn of or None).

        config: this run's LFCacheConfig. patch: the model's. may_try: False if nothing small can
            stand for this latent, whatever its size.
        """
        if self.earlier is None:
            return None, None
        if any(getattr(config, name) != getattr(self.earlier.lfcache, name) for name in _SCALE):
            return None, f"calibrate_from has other settings ({', '.join(_SCALE)} must agree): not taken over"
        runs = [run for run in reports.runs_of(self.earlier.id) if run["delta_max"]]
        if not runs and self.is_asked_for:
            return None, "calibrate_from was not sampled before, or measured nothing: not taken over"
        if not runs:
            return None, ("this sampler goes on where another stopped: alpha is measured on changes that are "
                          "small already. Connect calibrate_from to the MODEL of the sampler before, with LFCache")
        is_tried = may_try and len(self.shape) in (4, 5) and fit_factors(
            self.shape, config.factor_t, config.factor_hw, patch) != (1, 1, 1)
        if (runs[-1]["trials"] > 0) != is_tried:
            return None, "calibrate_from and this model differ in whether trials can be made: not taken over"
        return runs[-1]["delta_max"], None
