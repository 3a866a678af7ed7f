"""PreciseCache without ComfyUI: LFCache and BlockCache for any diffusion model in PyTorch.

`sample_flow` samples a rectified-flow model with either cache, both or none. `CachedRun` and
`block_cached` put the caches into a sampling loop of your own.
"""

from .blockcache.config import BlockCacheConfig
from .blockcache.run import BlockCacheRun
from .blockcache.swap import block_cached
from .cached_run import CachedRun
from .group import ALONE, Group, TorchGroup
from .lfcache.call import Call
from .lfcache.config import LFCacheConfig
from .lfcache.controller import LFCacheController
from .lfcache.latent.frequency import low_frequency_difference
from .lfcache.latent.parametrization import Parametrization
from .lfcache.latent.trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING
from .lfcache.run import LFCacheRun
from .record.report import build_report, dump_report, summary_line
from .sampling import FLOW_MODEL, flow_sigmas, guided, sample_flow

__all__ = [
    "ALONE",
    "FLOW",
    "FLOW_MODEL",
    "VARIANCE_EXPLODING",
    "VARIANCE_PRESERVING",
    "BlockCacheConfig",
    "BlockCacheRun",
    "CachedRun",
    "Call",
    "Group",
    "LFCacheConfig",
    "LFCacheController",
    "LFCacheRun",
    "Parametrization",
    "TorchGroup",
    "block_cached",
    "build_report",
    "dump_report",
    "flow_sigmas",
    "guided",
    "low_frequency_difference",
    "sample_flow",
    "summary_line",
]
