"""How often the caches of a group exchange, and what they keep: counted by sampling the bundled tiny model."""

from dataclasses import dataclass
from unittest import mock

import torch

from precisecache_core import BlockCacheConfig, CachedRun, LFCacheConfig, flow_sigmas, guided, sampling
from precisecache_core.group import ALONE, Group
from precisecache_core.tiny import bundle
from precisecache_core.tiny.prompts import encode_prompt

SHAPE = (1, 16, 4, 16, 16)
CFG = 4.0
CACHE_RATE = 0.4


class Twins(Group):
    """A group of two ranks in one process: the other one says what this one says."""

    size = 2

    def exchange(self, message):
        return [message, message]


@dataclass(frozen=True)
class Counted:
    """What one sampled run did.

    computed, trials: as in its report. Each computed call is one pass; skipping: those that skipped blocks.
    kept: predictions that LFCache held at most, in latents. exchanges: of the group; 0 alone.
    """

    steps: int
    computed: int
    trials: int
    skipping: int
    kept: float
    exchanges: int


def counted_course(setting, steps, group=ALONE, shape=SHAPE):
    """The Counted of a run with the preset `base`, `turbo` or `flash`, both guidance branches in one pass."""
    network = bundle.load_model()
    denoise = guided(network, encode_prompt("triangle", "orange", "right"), encode_prompt(), CFG)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    blockcache = BlockCacheConfig(cache_rate=CACHE_RATE) if setting == "flash" else None
    runs = []

    class Kept(CachedRun):
        """A run that can be asked after its end."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            runs.append(self)

    with mock.patch.object(sampling, "CachedRun", Kept):
        _, report = sampling.sample_flow(
            denoise,
            noise,
            flow_sigmas(steps, bundle.SHIFT),
            LFCacheConfig.from_preset(setting),
            blockcache,
            network.blocks,
            group=group,
        )
    blocks = report["blockcache"]
    return Counted(
        steps,
        report["computed"],
        report["trials"],
        blocks["block_calls_skipped"] // int(CACHE_RATE * blocks["blocks"]) if blocks else 0,
        report["cache_bytes"]["lfcache"] / noise.nbytes,
        runs[0].agreement.exchanges,
    )
