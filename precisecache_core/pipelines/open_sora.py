"""The caches on Open-Sora 1.2 (https://github.com/hpcaitech/Open-Sora, tag v1.2.0)."""

from types import TracebackType
from typing import Any

import torch

from ..blockcache.config import BlockCacheConfig
from ..checks import is_number, require
from ..record.report import build_report
from .precision import Precision
from .presets import configs_of
from .rflow_run import RFlowRun

LIMIT = 64  # runs whose reports are kept; the oldest is dropped first
OF_SCHEDULER = ("num_sampling_steps", "num_timesteps", "use_discrete_timesteps", "use_timestep_transform", "cfg_scale")


class CachedSTDiT3:
    """STDiT3 with the caches: it stands where `RFLOW.sample` takes its model.

        cached = CachedSTDiT3(model, scheduler, "turbo")
        samples = scheduler.sample(cached, text_encoder, z=z, prompts=prompts, device=device, additional_args=args)
        print(cached.report())

    A run ends after the scheduler's last step, after an error, and at the latest when the next one begins: one object
    serves any number of them. Every other attribute is the model's. In a reused step both guidance branches get the
    same answer, which every guidance scale gives back.

    model: STDiT3; its `patch_size`, `spatial_blocks` and `temporal_blocks` are read. scheduler: the RFLOW whose
    `sample` is called; its steps are read when a run begins. preset: base, turbo, flash, budget (with `share`), custom
    (with `alpha`), paper, or off, which computes every step and only writes the report. cfg_scale: what `sample` gets
    as `guidance_scale`; None for the scheduler's. blockcache: settings of BlockCache; flash has its own. settings:
    further fields of LFCacheConfig, for the presets that use them.
    Raises ValueError naming setting, value and remedy.
    """

    def __init__(
        self,
        model: Any,
        scheduler: Any,
        preset: str = "base",
        *,
        cfg_scale: float | None = None,
        alpha: float | None = None,
        share: float | None = None,
        blockcache: BlockCacheConfig | None = None,
        **settings: Any,
    ) -> None:
        require(not isinstance(model, CachedSTDiT3), "model", "without caches", model, "Give the STDiT3 itself.")
        if not (callable(model) and hasattr(model, "patch_size")):
            raise ValueError(
                f"PreciseCache: model must be Open-Sora 1.2's STDiT3, got {type(model).__name__}. "
                "For models of diffusers there is apply_precisecache."
            )
        if missing := [name for name in OF_SCHEDULER if not hasattr(scheduler, name)]:
            raise ValueError(
                f"PreciseCache: scheduler must be Open-Sora's RFLOW, got {type(scheduler).__name__} without "
                f"{', '.join(missing)}. Give the object whose sample() you call."
            )
        require(
            cfg_scale is None or is_number(cfg_scale),
            "cfg_scale",
            "a number or None",
            cfg_scale,
            "Give what sample() gets as guidance_scale.",
        )
        self._lfcache, self._blockcache = configs_of(preset, alpha, share, blockcache, settings)
        self._model = model
        self._scheduler = scheduler
        self._cfg_scale = cfg_scale
        self._entries: list[dict] = []
        self._run: RFlowRun | None = None
        self._time = 0.0  # timestep of the run's last call

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # our own, which a copy does not have yet
            raise AttributeError(name)
        return getattr(self._model, name)

    def __call__(self, x: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """What the model answers, computed or from the cache.

        x: the latent twice, for the prompt and without it, (2 B, C, T, H, W). timestep: (2 B,), from the scheduler's
        `num_timesteps` down. kwargs: the model's further arguments. Returns (2 B, 2 C, T, H, W); the second half of
        channels means nothing in a step that was reused or corrected.
        Raises ValueError if x or timestep have other shapes. An error of the model passes through and ends the run.
        """
        if x.ndim != 5 or len(x) % 2 or timestep.shape != x.shape[:1]:
            raise ValueError(
                f"PreciseCache: x must be (2 B, C, T, H, W) and timestep (2 B,), as RFLOW.sample gives them, got "
                f"{tuple(x.shape)} and {tuple(timestep.shape)}. Call the model itself for anything else."
            )
        precision = Precision(x.device)

        def model(*args: Any, **others: Any) -> torch.Tensor:
            with precision.callers():
                return self._model(*args, **others)

        times, is_clean = _read(timestep, kwargs.get("x_mask"))
        if self._run is None or times[0] >= self._time:
            self.end()
            scale = self._scheduler.cfg_scale if self._cfg_scale is None else self._cfg_scale
            z = x[: len(x) // 2]
            self._run = RFlowRun(self._model, self._scheduler, self._lfcache, self._blockcache, scale, z, kwargs)
        self._time = times[0]
        clean = kwargs["x_mask"] if is_clean else None
        try:
            with precision.ours():
                answer = self._run.call(x, times, kwargs, clean, model, lambda: model(x, timestep, **kwargs))
        except BaseException:
            self.end()
            raise
        if self._run.is_over:
            self.end()
        return answer

    def end(self) -> None:
        """End the run, if there is one, and drop its tensors."""
        run, self._run = self._run, None
        if run is not None and (entry := run.close()):
            self._entries.append(entry)
            del self._entries[:-LIMIT]

    def report(self) -> dict:
        """The report of the runs so far (`record/report.schema.json`), also of one that was broken off."""
        return build_report([*self._entries, *([self._run.cached.report()] if self._run else [])])

    def __enter__(self) -> "CachedSTDiT3":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _read(timestep: torch.Tensor, mask: torch.Tensor | None) -> tuple[list[float], bool]:
    """(timesteps, whether the mask keeps any frame clean), with one device read-back."""
    if mask is None:
        return timestep.tolist(), False
    *times, is_all = torch.cat((timestep.double(), mask.all().double()[None])).tolist()
    return times, not is_all
