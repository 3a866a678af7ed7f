"""Settings of LFCache and the presets that users choose by name."""

from dataclasses import dataclass, replace
from typing import Any

from ..checks import is_count, is_number, require
from . import change, reuse

TRIALS = tuple(change.SOURCES)
REFERENCES = ("trial", "cached")
REUSES = tuple(reuse.REUSES)
CACHE_DEVICES = ("model", "cpu")
PRESETS = ("base", "turbo", "flash", "budget", "paper", "custom")

# (extra_steps, share) of the steps that a preset computes. How many a video needs hardly depends on the number of
# steps: on the two models of the benchmarks, quality follows from how many are computed. With the paper's alpha (0.5
# and 0.7, Section 4.1) their number depends on the model and the flow shift. flash is turbo with BlockCache beside it.
PRESET_STEPS = {"base": (9.0, 0.07), "turbo": (8.1, 0.04), "flash": (8.1, 0.04)}
DEFAULT_SHARE = 0.4  # of `budget`

# With fewer steps almost nothing is left to skip after the warm-up (few-step and distilled models).
MINIMUM_STEPS = 8


@dataclass(frozen=True)
class LFCacheConfig:
    """How LFCache decides and what it reuses. Immutable; state lives in `LFCacheRun`.

    alpha: threshold over delta_max (paper, Section 4.1). 0 never reuses. Without effect if `share` is given.
    share: the share of the steps to compute; None decides by alpha. The steps are planned before the first of them
        (ours; see `plan`). extra_steps: steps to compute beside the share, in a run over the whole noise schedule.
    warmup: number of calls computed first; delta_max is measured over them (paper: 3).
    start_percent, end_percent: the part of the noise schedule in which reuse is allowed.
        Calls outside it are computed without a trial (ours).
    trial: `snr_matched` puts the pooled latent back on the noise schedule (ours);
        `plain` runs the model on the pooled latent at the same sigma (paper, Eq. 4).
    reference: what a trial is compared with: the `trial` of the last computed call (ours),
        or that call's `cached` prediction, downsampled (paper, Algorithm 1 line 10).
    reuse: `corrected` follows the trend of the last two computed calls, and each computed call puts
        right what the reused ones before it got wrong (ours; see `reuse.corrector`). `fitted`
        extrapolates over sigma from the last two computed predictions, weighted by how well that
        predicted the last computed call (ours). `taylor` extrapolates with full weight.
        `prediction` repeats the last prediction (paper). `residual` repeats prediction - x.
    factor_t, factor_hw: how much smaller the trial's latent is in time, and in height and
        width (paper, Table 3: 2 and 4).
    cutoff: radius of the low band over min(H, W) (paper: 1/5).
    cache_device: where predictions are kept: the `model`'s device, or `cpu`.
    try_every_call: make a trial at every call, even where the growth of the LFD shows that
        the call will be reused (paper; more trials for nearly the same decisions).
    Raises ValueError naming setting, bound, value and remedy.
    """

    alpha: float = 0.5
    share: float | None = None
    extra_steps: float = 0.0
    warmup: int = 3
    start_percent: float = 0.0
    end_percent: float = 1.0
    trial: str = "snr_matched"
    reference: str = "trial"
    reuse: str = "corrected"
    factor_t: int = 2
    factor_hw: int = 4
    cutoff: float = 0.2
    cache_device: str = "model"
    try_every_call: bool = False

    def __post_init__(self) -> None:
        require(
            is_number(self.alpha) and self.alpha >= 0,
            "alpha",
            "a number >= 0",
            self.alpha,
            "Use 0 to disable reuse; the paper uses 0.5 and 0.7.",
        )
        require(
            self.share is None or (is_number(self.share) and 0 < self.share <= 1),
            "share",
            "in (0, 1]",
            self.share,
            "It is the share of the steps that are computed: 0.4 computes 40 % of them.",
        )
        require(
            is_number(self.extra_steps) and self.extra_steps >= 0,
            "extra_steps",
            "a number >= 0",
            self.extra_steps,
            "It is the number of steps that are computed beside the share; the default is 0.",
        )
        require(
            is_count(self.warmup, 2),
            "warmup",
            "a whole number >= 2",
            self.warmup,
            "Two computed calls are the fewest that give a difference; the paper uses 3.",
        )
        for name in ("start_percent", "end_percent"):
            value = getattr(self, name)
            require(
                is_number(value) and 0 <= value <= 1,
                name,
                "in [0, 1]",
                value,
                "0 is the first sampling step and 1 the last.",
            )
        require(
            self.start_percent < self.end_percent,
            "start_percent",
            f"below end_percent ({self.end_percent})",
            self.start_percent,
            "Use 0 and 1 to allow reuse over the whole schedule.",
        )
        for name in ("factor_t", "factor_hw"):
            value = getattr(self, name)
            require(
                is_count(value, 1),
                name,
                "a whole number >= 1",
                value,
                "The paper's factors are 2 for time and 4 for height and width.",
            )
        require(
            is_number(self.cutoff) and 0 < self.cutoff <= 0.5,
            "cutoff",
            "in (0, 0.5]",
            self.cutoff,
            "The paper uses 0.2.",
        )
        for name, choices in (
            ("trial", TRIALS),
            ("reference", REFERENCES),
            ("reuse", REUSES),
            ("cache_device", CACHE_DEVICES),
        ):
            value = getattr(self, name)
            require(value in choices, name, f"one of {', '.join(choices)}", value, f"The default is {choices[0]}.")
        require(
            isinstance(self.try_every_call, bool),
            "try_every_call",
            "True or False",
            self.try_every_call,
            "The default, False, skips trials that are not needed for the decision.",
        )

    @classmethod
    def from_preset(
        cls, preset: str, alpha: float | None = None, share: float | None = None, **settings: Any
    ) -> "LFCacheConfig":
        """The configuration of a preset.

        preset: `base`, `turbo` and `flash` set extra_steps and share; `flash` is `turbo`, meant for a run with
            BlockCache too. `budget` takes `share`; `custom` and `paper` take `alpha`. `paper` follows the paper to the
            letter (plain trial at every call, downsampled cached reference, repeated prediction, three warm-up calls,
            factors 2 and 4, cutoff 1/5) and ignores those settings.
        settings: the other fields of LFCacheConfig.
        Raises ValueError on an unknown preset or an invalid setting.
        """
        require(
            preset in PRESETS,
            "preset",
            f"one of {', '.join(PRESETS)}",
            preset,
            "Use base for quality, turbo for speed.",
        )
        if preset in PRESET_STEPS:
            settings["extra_steps"], settings["share"] = PRESET_STEPS[preset]
        elif preset == "budget":
            settings["share"] = DEFAULT_SHARE if share is None else share
        elif alpha is not None:
            settings["alpha"] = alpha
        config = cls(**settings)
        if preset != "paper":
            return config
        return replace(
            config,
            warmup=3,
            start_percent=0.0,
            end_percent=1.0,
            trial="plain",
            reference="cached",
            reuse="prediction",
            factor_t=2,
            factor_hw=4,
            cutoff=0.2,
            try_every_call=True,
        )

    def budget(self, steps: int) -> int:
        """How many of a run's steps are planned to be computed, at most all of them; `share` must be given."""
        assert self.share is not None, "there is no plan without a share"
        return min(steps, int(self.extra_steps + self.share * steps + 1e-9))

    def for_part(self, part: float) -> "LFCacheConfig":
        """The configuration for a run over a part of the noise schedule: it has this part of the extra steps.

        part: in [0, 1].
        """
        return replace(self, extra_steps=self.extra_steps * part)
