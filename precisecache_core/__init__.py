"""PreciseCache without ComfyUI: LFCache and BlockCache for any diffusion model in PyTorch.

`sample_flow` samples a rectified-flow model with or without them; `LFCacheRun`,
`BlockCacheRun` and `block_cached` put them into a sampling loop of your own.
"""

from .blocks.config import BlockCacheConfig
from .blocks.run import BlockCacheRun
from .blocks.swap import block_cached
from .config import LFCacheConfig
from .controller import LFCacheController
from .frequency import low_frequency_difference
from .report import build_report, dump_report, summary_line
from .run import LFCacheRun
from .sampling import flow_sigmas, guided, sample_flow
from .trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING

__all__ = [
    "FLOW", "VARIANCE_EXPLODING", "VARIANCE_PRESERVING", "BlockCacheConfig", "BlockCacheRun", "LFCacheConfig",
    "LFCacheController", "LFCacheRun", "block_cached", "build_report", "dump_report", "flow_sigmas", "guided",
    "low_frequency_difference", "sample_flow", "summary_line",
]
