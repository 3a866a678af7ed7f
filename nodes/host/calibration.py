"""The scale for alpha that a sampler takes over from the one it continues (Wan2.2's two experts)."""

from typing import Any

import torch

from ...precisecache_core.lfcache.config import LFCacheConfig
from ...precisecache_core.lfcache.latent.shrink import fit_factors
from . import reports

# two runs must agree in these settings, otherwise their LFDs differ in scale
_SCALE = ("trial", "reference", "factor_t", "factor_hw", "cutoff")


class Calibration:
    """The delta_max of an earlier sampler of the same latent, if there is one.

    attachment: of the MODEL that is sampled now. The earlier sampler is that of `calibrate_from`; without
        `calibrate_from` it is an earlier one with the same MODEL, if this sampler continues a latent.
    noise: the noise that this sampler adds to its latent; a sampler that continues a latent adds none.
    """

    def __init__(self, attachment: Any, noise: torch.Tensor) -> None:
        self.is_continuing = isinstance(noise, torch.Tensor) and noise.device.type == "cpu" and not noise.any()
        self.is_requested = attachment.earlier is not None
        self.earlier = attachment.earlier or (attachment if self.is_continuing else None)
        self.shape = noise.shape

    def _runs(self) -> list[dict]:
        """The reports of the earlier sampler's runs that measured a delta_max, oldest first."""
        if self.earlier is None:
            return []
        return [run for run in reports.runs_of(self.earlier.id) if run["delta_max"]]

    @property
    def has_lost_trials(self) -> bool:
        """Whether the earlier sampler made trials and gave them up, so that its delta_max is not theirs."""
        runs = self._runs()
        return any(run["trials"] for run in runs) and not runs[-1]["uses_trials"]

    def delta_max(
        self, config: LFCacheConfig, patch: tuple[int, int, int], may_try: bool
    ) -> tuple[float | None, str | None]:
        """(delta_max of the earlier sampler or None, warning or None).

        config: of this run. patch: the model's patch over (T, H, W).
        may_try: False if this run makes no trials, whatever the latent's size.
        """
        if self.earlier is None:
            return None, None
        if any(getattr(config, name) != getattr(self.earlier.lfcache, name) for name in _SCALE):
            return None, f"calibrate_from has different settings ({', '.join(_SCALE)} must agree): it is not used"
        runs = self._runs()
        if not runs and self.is_requested:
            return None, "calibrate_from was not sampled before this run, or measured nothing: it is not used"
        if not runs:
            return None, (
                "this sampler continues another one, so its warm-up sees only small changes and gives "
                "alpha too small a scale. Connect calibrate_from to the earlier sampler's MODEL with LFCache"
            )
        has_trials = (
            may_try
            and len(self.shape) in (4, 5)
            and fit_factors(self.shape, config.factor_t, config.factor_hw, patch) != (1, 1, 1)
        )
        if runs[-1]["uses_trials"] != has_trials:
            return None, "trials can be made for only one of calibrate_from and this model: it is not used"
        return runs[-1]["delta_max"], None
