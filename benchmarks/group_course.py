"""How often the caches of a group exchange, and what they keep: counted by sampling the bundled tiny model."""

from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from precisecache_core import FLOW_MODEL, BlockCacheConfig, CachedRun, LFCacheConfig, block_cached, flow_sigmas, guided
from precisecache_core.sampling import euler_step
from precisecache_core.tiny import bundle
from precisecache_core.tiny.prompts import encode_prompt

SHAPE = (1, 16, 4, 16, 16)
CFG = 4.0


class Twins:
    """A group of two ranks in one process: the other one says what this one says."""

    size = 2
    rank = 0

    def exchange(self, message):
        return [message, message]

    def post(self, message):
        pass


@dataclass(frozen=True)
class Counted:
    """What one sampled run did.

    computed, trials: as in its report. passes: through the model, trials apart; skipping: those that skipped blocks.
    kept: predictions that LFCache held at most, in latents. exchanges: of the group; None without one.
    """

    steps: int
    computed: int
    trials: int
    passes: int
    skipping: int
    kept: float
    exchanges: int | None


def message_bytes():
    """Bytes that a rank puts into one exchange; None where the pack has no groups."""
    if find_spec("precisecache_core.group") is None:
        return None
    from precisecache_core.group import MESSAGE_BYTES

    return MESSAGE_BYTES


def exchanges_of(run):
    """How often the ranks of this CachedRun exchanged so far."""
    return run.agreement.exchanges


@torch.inference_mode()
def counted_course(setting, steps, group=None, shape=SHAPE):
    """The Counted of a run with the preset `base`, `turbo` or `flash`, both guidance branches in one pass."""
    network = bundle.load_model()
    denoise = guided(network, encode_prompt("triangle", "orange", "right"), encode_prompt(), CFG)
    sigmas = flow_sigmas(steps, bundle.SHIFT)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    run = CachedRun(
        LFCacheConfig.from_preset(setting),
        BlockCacheConfig(cache_rate=0.4) if setting == "flash" else None,
        FLOW_MODEL,
        steps,
        schedule=sigmas.tolist(),
        **({"group": group} if group else {}),
    )
    passes = []  # for each computed call, whether it skipped blocks

    def model():
        before = run.journal.blocks_skipped
        with block_cached(run.blockcache, network.blocks, sigma) if run.blockcache else nullcontext():
            denoised = denoise(x, sigma)
        passes.append(run.journal.blocks_skipped > before)
        return denoised

    x, kept = noise * sigmas[0], 0
    try:
        for sigma, following in zip(sigmas[:-1], sigmas[1:]):
            x = euler_step(x, run.denoised(x, sigma, model, denoise), sigma, following)
            kept = max(kept, run.lfcache.cache_bytes)
        report = run.report()
        exchanges = exchanges_of(run) if group else None
    finally:
        run.release()
    return Counted(
        steps, report["computed"], report["trials"], len(passes), sum(passes), kept / noise.nbytes, exchanges
    )
