"""One run of Open-Sora's RFLOW: Euler steps on v = data - noise, both guidance branches in one batch."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..blockcache.config import BlockCacheConfig
from ..blockcache.run import EVERYWHERE
from ..blockcache.swap import block_cached
from ..cached_run import CachedRun
from ..lfcache.config import LFCacheConfig
from ..lfcache.latent.parametrization import Parametrization
from ..lfcache.latent.trial import FLOW, Trial
from ..lfcache.window import WHOLE_SCHEDULE
from ..sampling import percent_window, start_sigma

SAME_LEVEL = 1e-4  # two noise levels that differ by less are the same
SAME_SCALE = 0.01  # two guidance scales that differ by a smaller share are the same

logger = logging.getLogger("precisecache")


class RFlowRun:
    """The caches of one run.

    model: STDiT3. scheduler: RFLOW. cfg_scale: of the guidance. z: the latent of the first call, (B, C, T, H, W).
    kwargs: the model's further arguments, those of the first call.
    """

    def __init__(
        self,
        model: Any,
        scheduler: Any,
        lfcache: LFCacheConfig | None,
        blockcache: BlockCacheConfig | None,
        cfg_scale: float,
        z: torch.Tensor,
        kwargs: dict,
    ) -> None:
        self.model = model
        self.cfg_scale = cfg_scale
        self.top = scheduler.num_timesteps
        self.levels = noise_levels(scheduler, kwargs)
        self.blocks = blocks_of(model)
        self.number = 0  # of the next call
        sigmas = torch.tensor(self.levels)
        self.cached = CachedRun(
            lfcache,
            blockcache,
            Parametrization(_affine, FLOW, sigma_min=1e-3, patch=tuple(model.patch_size)),
            len(self.levels) - 1,
            device=z.device,
            sigma_window=percent_window(lfcache, sigmas) if lfcache else WHOLE_SCHEDULE,
            block_start_sigma=start_sigma(blockcache, sigmas) if blockcache else EVERYWHERE,
            name=type(model).__name__,
            latent_shape=z.shape,
            schedule=self.levels,
        )
        self._clean: torch.Tensor | None = None  # x_mask if frames are kept clean: False for those, (2 B, T), bool
        self._first: tuple[torch.Tensor, ...] | None = None  # the first call's latent, cond - null, null
        if getattr(model, "enable_sequence_parallelism", False):
            self._stand_aside("sequence parallelism was not tried")

    @property
    def is_over(self) -> bool:
        """Whether all steps are done."""
        return self.number >= len(self.levels) - 1

    def call(
        self,
        x: torch.Tensor,
        times: Sequence[float],
        kwargs: dict,
        clean: torch.Tensor | None,
        model: Callable[..., torch.Tensor],
        compute: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """What the model answers.

        x: the latent twice, (2 B, C, T, H, W). times: the timestep of each. kwargs: the model's further arguments.
        clean: x_mask if frames are kept clean, else None. model: calls the model on a small latent. compute(): calls it
        on this one; its answer is (2 B, 2 C, T, H, W), of which RFLOW drops the second half of channels.
        """
        z = x[: len(x) // 2].float()  # RFLOW's latent has the model's dtype in the first step, float32 afterwards
        level = self._level(times)
        self.number += 1
        self._note_mask(clean)
        self._check_scale(z)
        sigma = torch.tensor(level, device=z.device)
        call = self.cached.begin(z, sigma)
        while call.trial is not None:
            call.observe(self._trial(model, call.trial, z, kwargs))
        if call.is_reused:
            return _both((call.reused()[0] - z) / sigma)
        output = self._computed(compute, sigma)
        denoised = z + sigma * self._moving(self._guided(output))
        if self.number == 1:
            cond, null = _branches(output)
            self._first = (z, self._moving(cond - null), self._moving(null))
        finished = call.finish(denoised)
        return output if finished is denoised else _both((finished - z) / sigma)

    def close(self) -> dict | None:
        """The run is over: drop every tensor. Returns its report entry; None if no call ended."""
        self.cached.end()
        entry = self.cached.report() if self.cached.journal.calls else None
        self.cached.release()
        self._first = self._clean = None
        return entry

    def _stand_aside(self, reason: str) -> None:
        for cache in (self.cached.lfcache, self.cached.blockcache):
            if cache is not None and not cache.is_standing_aside:
                cache.stand_aside(reason)

    def _level(self, times: Sequence[float]) -> float:
        """The noise level of a call: that of the schedule, if the sampler is there."""
        level, planned = times[0] / self.top, self.levels[self.number]
        if max(times) - min(times) > SAME_LEVEL * self.top:
            self._stand_aside("the videos of a batch have different timesteps")
        elif abs(level - planned) > SAME_LEVEL:
            self._stand_aside(
                f"step {self.number + 1} has timestep {times[0]:g}, but by the given scheduler {planned * self.top:g}"
            )
        else:
            return planned
        return level

    def _note_mask(self, clean: torch.Tensor | None) -> None:
        """Take a call's mask of clean frames. RFLOW does not move them, until it adds noise to them."""
        lfcache, blockcache = self.cached.lfcache, self.cached.blockcache
        if self.number == 1:
            if clean is not None and not lfcache.is_standing_aside:
                lfcache.do_without_trials("some frames are kept clean")
        elif not _same(clean, self._clean):
            if not lfcache.is_standing_aside:
                lfcache.stage.forget_predictions()
            if blockcache is not None:
                blockcache.residuals = {}
        self._clean = clean

    def _moving(self, v: torch.Tensor) -> torch.Tensor:
        """v with zeros in clean frames."""
        return v if self._clean is None else v * self._clean[: len(v), None, :, None, None]

    def _check_scale(self, z: torch.Tensor) -> None:
        """The first step shows what guidance scale the sampler mixes the branches with."""
        if self._first is None or self.cached.lfcache.is_standing_aside:
            return
        (before, difference, null), self._first = self._first, None
        moved = (z - before) / (self.levels[0] - self.levels[1]) - null
        scale = float((moved * difference).sum() / difference.square().sum())
        if abs(scale - self.cfg_scale) > SAME_SCALE * max(1.0, abs(self.cfg_scale)):  # False if the branches are equal
            self._stand_aside(
                f"the sampler's guidance scale is {scale:.3g}, but cfg_scale is {self.cfg_scale:g}: give it the same"
            )

    def _guided(self, output: torch.Tensor) -> torch.Tensor:
        cond, null = _branches(output)
        return null + self.cfg_scale * (cond - null)

    def _computed(self, compute: Callable[[], Any], sigma: torch.Tensor) -> torch.Tensor:
        run = self.cached.blockcache
        if run is None or run.is_standing_aside:
            return compute()
        if not self.blocks:
            run.stand_aside(f"the blocks of {type(self.model).__name__} are not known")
            return compute()
        return block_cached(run, self.blocks, compute, sigma)

    def _trial(
        self, model: Callable[..., torch.Tensor], trial: Trial, z: torch.Tensor, kwargs: dict
    ) -> torch.Tensor | None:
        """The denoised small latent of a trial, in the shape of `trial.x`; None if the model cannot run on it."""
        x = trial.x
        time = (trial.sigma * self.top).expand(2 * len(x))
        try:
            output = model(torch.cat((x, x)), time, **small_arguments(kwargs, trial, z.shape))
            return x + trial.sigma * self._guided(output)
        except Exception as error:  # only the trials are given up: if the full call fails too, the run fails
            logger.debug("PreciseCache: the trial failed", exc_info=True)
            self.cached.lfcache.do_without_trials(f"the trial failed with {type(error).__name__}: {error}")
            return None


def noise_levels(scheduler: Any, kwargs: dict) -> list[float]:
    """The noise levels of RFLOW's steps, falling from 1, with the 0 at which the run ends.

    scheduler: RFLOW. kwargs: the model's arguments; `height`, `width` and `num_frames`, (B,), set the shift (that of
    SD3, arXiv:2403.03206, Section 5.3.2) if the scheduler transforms timesteps. Reads the device.
    """
    steps, top = scheduler.num_sampling_steps, scheduler.num_timesteps
    times = [(1.0 - i / steps) * top for i in range(steps)]
    levels = torch.tensor([round(t) for t in times] if scheduler.use_discrete_timesteps else times) / top
    if scheduler.use_timestep_transform:
        # in the arguments' own dtype, in which RFLOW computes the shift
        height, width, frames = (kwargs[name][:1].cpu() for name in ("height", "width", "num_frames"))
        latent_frames = frames if frames == 1 else frames // 17 * 5  # as RFLOW counts them
        shift = (height * width / 512**2).sqrt() * latent_frames.sqrt()
        levels = shift * levels / (1 + (shift - 1) * levels)
    return [*levels.tolist(), 0.0]


def small_arguments(kwargs: dict, trial: Trial, shape: Sequence[int]) -> dict:
    """The model's arguments for a trial, from those of a full call; shape: of the full latent, (B, C, T, H, W).

    Height, width and number of frames are those of the small latent. A video with a part of the frames has that part
    of the frames per second.
    """
    frames, height, width = (small / full for small, full in zip(trial.x.shape[2:], shape[2:]))
    shares = {"height": height, "width": width, "num_frames": frames, "fps": 1 / trial.factors[0]}
    changed = {name: kwargs[name] * share for name, share in shares.items() if kwargs.get(name) is not None}
    if "x_mask" in kwargs:  # there are trials only if it keeps nothing clean
        changed["x_mask"] = None
    return {**kwargs, **changed}


def blocks_of(model: Any) -> list[nn.Module]:
    """STDiT3's blocks in the order in which it calls them; none for another model."""
    pairs = zip(getattr(model, "spatial_blocks", ()), getattr(model, "temporal_blocks", ()))
    return [block for pair in pairs for block in pair]


def _affine(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(a, b) with denoised = a x + b v: v is data - noise."""
    return torch.ones_like(sigma), sigma


def _branches(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cond, null) of the model's answer, (B, C, T, H, W) float32 each."""
    cond, null = output.chunk(2, 1)[0].float().chunk(2)
    return cond, null


def _both(v: torch.Tensor) -> torch.Tensor:
    """v, (B, C, T, H, W), as the answer of both branches, with channels for RFLOW to drop."""
    return v.repeat(2, 2, 1, 1, 1)


def _same(mask: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return mask is other if mask is None or other is None else torch.equal(mask, other)
