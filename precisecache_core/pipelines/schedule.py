"""The noise schedule of a diffusers scheduler, as the model understands it."""

from typing import Any

import torch

from ..lfcache.latent.parametrization import Parametrization
from ..lfcache.latent.trial import FLOW, VARIANCE_PRESERVING

# the largest noise level of a model that preserves the variance: some schedules begin at infinity
LARGEST = 4096.0
SIGMA_MIN = 1e-3
# two timesteps that differ by less are the same: by this share, and by this share of the largest
ROUNDED, WHOLE = 0.006, 0.001


class Schedule:
    """What a scheduler says of its noise levels and of the model's output.

    Flow: x = (1 - sigma) z + sigma n, and the output is the velocity. Otherwise the variance is preserved: what the
    model gets is (z + sigma n) / sqrt(1 + sigma^2), whatever the scheduler itself works on.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        config = scheduler.config
        is_of_flow = type(scheduler).__name__.startswith("FlowMatch")
        self.prediction_type = config.get("prediction_type", "epsilon")
        self.is_flow = bool(is_of_flow or config.get("use_flow_sigmas") or self.prediction_type == "flow_prediction")
        self._table: torch.Tensor | None = None  # the noise level of each training timestep
        self._times: tuple[torch.Tensor, list[float]] | None = None  # the scheduler's timesteps, and their values

    def obstacle(self) -> str | None:
        """Why the noise levels or the model's output are not known, or None."""
        name = type(self.scheduler).__name__
        if not self.is_flow and self.prediction_type not in AFFINES:
            return f"what the model predicts with {name} is not known ({self.prediction_type})"
        if not self.is_flow and not hasattr(self.scheduler, "alphas_cumprod"):
            return f"the noise levels of {name} are not known"
        return None

    def parametrization(self, patch: tuple[int, int, int]) -> Parametrization:
        """Of the model, as its scheduler understands its output. patch: as in Parametrization."""
        if self.is_flow:
            return Parametrization(_flow, FLOW, SIGMA_MIN, patch)
        return Parametrization(AFFINES.get(self.prediction_type, _eps), VARIANCE_PRESERVING, SIGMA_MIN, patch)

    def levels(self) -> list[float]:
        """The noise levels of the scheduler's steps, with the one at which the run ends; reads the device."""
        timesteps = self.scheduler.timesteps
        sigmas = getattr(self.scheduler, "sigmas", None)
        if isinstance(sigmas, torch.Tensor) and len(sigmas) >= len(timesteps):
            known = sigmas[: len(timesteps) + 1].double().nan_to_num(posinf=LARGEST).clamp(max=LARGEST).tolist()
            return known if len(known) > len(timesteps) else [*known, 0.0]  # before `set_timesteps` the end is missing
        if self.obstacle():  # the number of steps is all that is known
            return [*torch.linspace(1, 0, len(timesteps) + 1).tolist()]
        return [*self._levels_of_training()[timesteps.long().cpu()].tolist(), 0.0]

    def step(self) -> int | None:
        """The number of the scheduler's next step; None if it does not say."""
        index = getattr(self.scheduler, "step_index", None)
        return getattr(self.scheduler, "begin_index", None) if index is None else index

    def step_at(self, timestep: Any) -> int:
        """The number of the step at a timestep of any shape; 0 if there is none. Reads the device."""
        if not isinstance(timestep, torch.Tensor) or not timestep.numel():
            return 0
        found = (self.scheduler.timesteps.cpu() == timestep.max().cpu()).nonzero()
        return int(found[0]) if len(found) else 0

    def is_at(self, timestep: torch.Tensor, step: int, divisor: int = 1) -> bool:
        """Whether a timestep that the model gets is that of a step, but for what bfloat16 and whole numbers round.

        timestep: of any shape; that of clean frames is lower than the others. divisor: by which the pipeline divides
        the scheduler's timesteps. Reads the device unless it is a view of them.
        """
        timesteps = self.scheduler.timesteps
        if not 0 <= step < len(timesteps) or not timestep.numel():
            return False
        first, expected = timestep[(0,) * timestep.ndim], timesteps[step]
        if first.untyped_storage().data_ptr() == expected.untyped_storage().data_ptr():
            return first.storage_offset() == expected.storage_offset()
        if self._times is None or self._times[0] is not timesteps:
            self._times = timesteps, timesteps.tolist()
        time, top = self._times[1][step], max(self._times[1])
        return abs(float(timestep.max()) * divisor - time) <= ROUNDED * abs(time) + WHOLE * top

    @property
    def is_scaled(self) -> bool:
        """Whether the scheduler's latent is not what the model gets."""
        return float(getattr(self.scheduler, "init_noise_sigma", 1.0)) != 1.0

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """What the model takes for a noise level, 0-dim."""
        if self.is_flow:
            return sigma * self.scheduler.config.num_train_timesteps
        if self._table is None or self._table.device != sigma.device:
            self._table = self._levels_of_training().to(sigma.device, torch.float32)
        return torch.searchsorted(self._table, sigma.float()).clamp(max=len(self._table) - 1)

    def _levels_of_training(self) -> torch.Tensor:
        kept = self.scheduler.alphas_cumprod.double().cpu()
        return ((1 - kept) / kept.clamp_min(1e-12)).sqrt().clamp_max(LARGEST)


def _flow(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones_like(sigma), -sigma


def _eps(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (1 + sigma**2).sqrt(), -sigma


def _velocity(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (1 + sigma**2).sqrt()
    return 1 / scale, -sigma / scale


def _sample(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros_like(sigma), torch.ones_like(sigma)


# (a, b) with denoised = a x + b prediction, for what a scheduler without flow calls `prediction_type`
AFFINES = {"epsilon": _eps, "v_prediction": _velocity, "sample": _sample}
