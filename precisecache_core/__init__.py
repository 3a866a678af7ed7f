"""PreciseCache without ComfyUI: LFCache for any diffusion model in PyTorch.

`sample_flow` samples a rectified-flow model with or without LFCache; `LFCacheRun` puts
the cache into a sampling loop of your own.
"""

from .config import LFCacheConfig
from .controller import LFCacheController
from .frequency import low_frequency_difference
from .report import build_report, dump_report, summary_line
from .run import LFCacheRun
from .sampling import flow_sigmas, guided, sample_flow
from .trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING

__all__ = [
    "FLOW", "VARIANCE_EXPLODING", "VARIANCE_PRESERVING", "LFCacheConfig", "LFCacheController",
    "LFCacheRun", "build_report", "dump_report", "flow_sigmas", "guided",
    "low_frequency_difference", "sample_flow", "summary_line",
]
