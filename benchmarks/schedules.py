"""The paper's schedules, forced on the pack's own code whatever its trials measure."""

from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch

from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.blockcache.run import BlockCacheRun

STEPS = 50


@dataclass(frozen=True)
class Published:
    """PMACs and seconds of Table 1, by setting; `none` is the model without a cache."""

    macs: dict
    seconds: dict

    def computed(self, setting):
        """How many of 50 calls were computed, from the MACs, rounded; flash computes the same calls as turbo."""
        setting = "turbo" if setting == "flash" else setting
        return round(STEPS * self.macs[setting] / self.macs["none"])


PUBLISHED = {
    "wan14b": Published(
        dict(none=329.2, base=204.5, turbo=151.0, flash=122.4), dict(none=907.3, base=570.6, turbo=422.1, flash=344.9)
    ),
    "hunyuan": Published(
        dict(none=14.92, base=9.15, turbo=7.49, flash=6.04), dict(none=73.64, base=45.74, turbo=37.76, flash=30.18)
    ),
    "cogvideox-2b": Published(
        dict(none=6.03, base=3.59, turbo=2.96, flash=2.31), dict(none=21.13, base=12.81, turbo=10.46, flash=8.19)
    ),
}


def spread(steps, computed, warmup=3):
    """A decision string: the warm-up is computed, and the other computed calls are spread evenly."""
    rest, wanted = steps - warmup, computed - warmup
    return "C" * warmup + "".join("C" if (i + 1) * wanted // rest > i * wanted // rest else "R" for i in range(rest))


@contextmanager
def forced(decisions, controller):
    """While inside, LFCache decides as the string says; it still makes its trials and LFDs.

    controller: the class LFCacheController, as the code under test imported it.
    """
    decide = controller.decide

    def as_told(self, lfd):
        call = self.calls
        decide(self, lfd)
        return decisions[call] == "R"

    def would(self, lfd):
        return decisions[self.calls] == "R"

    with mock.patch.object(controller, "decide", as_told), mock.patch.object(controller, "would_reuse", would):
        yield


@dataclass(frozen=True)
class Tally:
    """What a run did: its decisions, trials, and skipped block calls."""

    decisions: str
    trials: int
    skipped: int


def tally(decisions, blocks, blockcache=None):
    """The Tally of these decisions, each after a trial, with the pack's own BlockCache on toy tensors.

    blockcache: a BlockCacheConfig, or None.
    """
    cache = BlockCacheRun(blockcache or BlockCacheConfig(cache_rate=0.0))
    for _ in range(decisions.count("C")):
        cache.begin_call()
        current = cache.open_pass([("cond", slice(0, 1))])
        state = {"img": torch.zeros(1, 1, 1)}
        for i in range(blocks):
            state = current.run_block(("double_block", i), state, lambda given=state: {"img": given["img"] + i})
        current.close()
    return Tally(decisions, len(decisions), cache.tally.block_calls_skipped)
