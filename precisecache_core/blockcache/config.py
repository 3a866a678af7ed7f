"""Settings of BlockCache."""

from dataclasses import dataclass

from ..checks import is_count, is_number, require

STORAGES = ("merged", "per_block")
CACHE_DEVICES = ("model", "cpu")


@dataclass(frozen=True)
class BlockCacheConfig:
    """Which blocks BlockCache skips and for how long. Immutable; state lives in `BlockCacheRun`.

    cache_rate: share of the blocks that are skipped (paper: 0.4).
    reuse_steps: number of computed calls that skip them before the next refresh (paper: L = 3).
    warmup: number of calls computed in full first (ours; 3, as the paper's warm-up of LFCache).
    start_percent: the point of the noise schedule from which blocks may be skipped (ours).
    storage: `merged` keeps one sum of residuals for each range of neighbouring skipped blocks,
        which are chosen by the previous ranking (ours). `per_block` ranks the blocks and keeps
        their residuals in the same call, until the next call all of them (paper).
    cache_device: where residuals are kept: the `model`'s device, or `cpu` (pinned memory).
    Raises ValueError naming setting, bound, value and remedy.
    """

    cache_rate: float = 0.4
    reuse_steps: int = 3
    warmup: int = 3
    start_percent: float = 0.0
    storage: str = "merged"
    cache_device: str = "model"

    def __post_init__(self) -> None:
        require(
            is_number(self.cache_rate) and 0 <= self.cache_rate < 1,
            "cache_rate",
            "in [0, 1)",
            self.cache_rate,
            "0 skips no block; the paper uses 0.4.",
        )
        require(
            is_count(self.reuse_steps, 1),
            "reuse_steps",
            "a whole number >= 1",
            self.reuse_steps,
            "The paper uses 3; set cache_rate to 0 to skip nothing.",
        )
        require(
            is_count(self.warmup, 2),
            "warmup",
            "a whole number >= 2",
            self.warmup,
            "One call ranks the blocks and the next keeps their residuals.",
        )
        require(
            is_number(self.start_percent) and 0 <= self.start_percent < 1,
            "start_percent",
            "in [0, 1)",
            self.start_percent,
            "0 is the first sampling step.",
        )
        for name, choices in (("storage", STORAGES), ("cache_device", CACHE_DEVICES)):
            value = getattr(self, name)
            require(value in choices, name, f"one of {', '.join(choices)}", value, f"The default is {choices[0]}.")
