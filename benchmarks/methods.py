"""The rows of the frontier: every method with its settings swept, each named and attachable.

A row's name begins with its family; a family is one curve of the plot.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from benchmarks.options import results_of
from benchmarks.peers.broadcast import attach_fora, attach_pab
from benchmarks.peers.calibrate import calibration_path, read_calibration
from benchmarks.peers.first_block import attach_first_block
from benchmarks.peers.magcache import attach_magcache
from benchmarks.peers.taylorseer import attach_taylorseer
from benchmarks.peers.teacache import attach_teacache
from benchmarks.peers.uniform import attach_uniform, uniform_pattern
from benchmarks.variants import VARIANTS
from precisecache_core.lfcache.config import PRESET_STEPS, REUSES
from testkit.host_caches import attach_easycache, attach_lazycache

PLANNED = (0.6, 0.5, 0.4, 1 / 3, 0.27, 0.2, 0.15)  # shares of LFCache's plan
ALPHAS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
PAPER_ALPHAS = (0.5, 0.7, 1.0, 2.0, 4.0)
LITERAL = {"trial": "plain", "reference": "cached", "reuse": "prediction", "try_every_call": True}
SHARES = (0.5, 0.4, 1 / 3, 0.25, 0.2, 0.15, 0.1)
OTHER_PLANNED = (0.4, 0.27, 0.2)
OTHER_SHARES = (0.5, 1 / 3, 0.2)
CORRECTOR_SHARES = (1 / 3, 0.2)
LIMIT_SHARES = (1 / 3, 0.2)  # for which `benchmarks.tables.limit` searches the best schedule
# covers most of the schedule, for methods whose authors picked a part by hand; in the model's timesteps
BROADCAST_WINDOW = (100, 930)
CALIBRATION_STEPS = 50

# BlockCache's settings; the first are the paper's
BLOCK_SETTINGS = {
    "paper": {},
    "late": {"start_percent": 0.5},
    "short": {"reuse_steps": 1},
    "short late few": {"cache_rate": 0.2, "reuse_steps": 1, "start_percent": 0.3},
    "short fewer": {"cache_rate": 0.1, "reuse_steps": 1},
}
ALONE = ("paper", "late", "short")  # the settings that are also measured without LFCache
BLOCK_SHARES = (0.5, 1 / 3)  # of the steps, that LFCache computes
CANDIDATE_ALPHAS = (0.35, 0.7)


@dataclass(frozen=True)
class Schedule:
    """What is sampled: sampler, scheduler, steps, flow shift, latent shape."""

    sampler: str = "euler"
    scheduler: str = "simple"
    steps: int = 50
    shift: float = 2.0
    shape: tuple = (1, 16, 4, 32, 32)

    @property
    def name(self):
        return f"{self.sampler}{self.steps}_shift{self.shift:g}_{self.shape[2]}x{self.shape[3]}"


# the schedules that the project's targets are set for
SCHEDULES = (
    Schedule("euler", "simple", 50, 2.0),
    Schedule("euler", "simple", 30, 5.0),
    Schedule("euler", "simple", 20, 5.0),
    Schedule("uni_pc", "simple", 30, 2.0),
    Schedule("uni_pc", "simple", 20, 5.0),
    Schedule("dpmpp_2m", "simple", 30, 2.0),
)


@dataclass(frozen=True)
class Row:
    """One setting of one method.

    attach(bench, base, schedule): returns the model with the method.
    is_whole: the method skips no part of an evaluation, so that its FLOPs follow from the shape
        of the network's input. reports: the pack's report has the decisions. is_searched: found by
        `benchmarks.tables.limit`, not by attaching anything.
    """

    family: str
    setting: str
    attach: Callable
    is_whole: bool = False
    reports: bool = False
    is_searched: bool = False

    @property
    def name(self):
        return f"{self.family} {self.setting}"


@cache
def calibration(model, shift, shape):
    """TeaCache's and MagCache's calibration for the model of this name at this shift, from 50 uncached Euler steps.

    Their authors calibrate once per model and use the result for any number of steps.
    """
    path = calibration_path(CALIBRATION_STEPS, shape, shift=shift, folder=results_of(model))
    if not path.exists():
        sys.exit(
            f"TeaCache and MagCache need {path}: python3 run.py bench calibrate --model {model} "
            f"--steps {CALIBRATION_STEPS} --shift {shift:g} --shape {' '.join(map(str, shape))}"
        )
    return read_calibration(path)


def _uniform(share, reuse, variant=None):
    def attach(bench, base, schedule):
        return attach_uniform(base, uniform_pattern(schedule.steps, share), reuse, variant)

    return attach


def _lfcache(**settings):
    return lambda bench, base, schedule: bench.lfcache(base, **settings)


def _preset(name):
    """LFCache as the node's preset has it; the schedules are whole ones, so that all of its extra steps are due."""
    extra_steps, share = PRESET_STEPS[name]
    return _lfcache(extra_steps=extra_steps, share=share)


def _flash(blocks, **settings):
    """BlockCache; with settings, LFCache in front of it."""

    def attach(bench, base, schedule):
        return bench.blockcache(bench.lfcache(base, **settings) if settings else base, **blocks)

    return attach


def _plain(attach, *settings, **more):
    return lambda bench, base, schedule: attach(base, *settings, **more)


def _teacache(threshold, signal):
    def attach(bench, base, schedule):
        known = calibration(bench.trained.name, schedule.shift, schedule.shape)["teacache"][signal]
        return attach_teacache(base, threshold, known, signal)

    return attach


def _magcache(threshold, max_skips):
    def attach(bench, base, schedule):
        known = calibration(bench.trained.name, schedule.shift, schedule.shape)["magcache"]
        return attach_magcache(base, threshold, known, max_skips)

    return attach


def own_rows():
    """LFCache with a planned share or with alpha, the paper's LFCache, and uniform skipping.

    lfcache plan: with the defaults. usual plan: without a rehearsal. plan fitted, plan taylor: without correction.
    corrector ...: uniform skipping, corrected in other ways.
    """
    rows = [Row("lfcache plan", name, _preset(name), True, True) for name in PRESET_STEPS]
    rows += [Row("lfcache plan", f"{s:.2f}", _lfcache(share=s), True, True) for s in PLANNED]
    rows += [
        Row(f"lfcache {name}", f"{s:.2f}", _lfcache(share=s, **settings), True, True)
        for name, settings in {
            "usual plan": {"factor_t": 1, "factor_hw": 1},
            "plan fitted": {"reuse": "fitted"},
            "plan taylor": {"reuse": "taylor"},
        }.items()
        for s in OTHER_PLANNED
    ]
    rows += [Row("lfcache alpha", f"{a:g}", _lfcache(alpha=a), True, True) for a in ALPHAS]
    rows += [Row("lfcache fitted", f"{a:g}", _lfcache(alpha=a, reuse="fitted"), True, True) for a in ALPHAS]
    rows += [Row("uniform corrected", f"{s:.2f}", _uniform(s, "corrected"), True) for s in SHARES]
    rows += [Row("uniform fitted", f"{s:.2f}", _uniform(s, "fitted"), True) for s in SHARES]
    rows += [Row("paper", f"{a:g}", _lfcache(alpha=a, **LITERAL), True, True) for a in PAPER_ALPHAS]
    for reuse in ("taylor", "prediction", "residual"):
        rows += [Row(f"uniform {reuse}", f"{s:.2f}", _uniform(s, reuse), True) for s in OTHER_SHARES]
    for variant in VARIANTS:
        rows += [
            Row(f"corrector {variant}", f"{s:.2f}", _uniform(s, "corrected", variant), True) for s in CORRECTOR_SHARES
        ]
    return rows


def block_rows():
    """BlockCache in the paper's and in other settings, with LFCache (flash) and alone.

    literal flash: flash as the paper has it, that is literal LFCache and one residual per block.
    flash paper turbo: the nodes' flash, that is the preset turbo and BlockCache's defaults.
    """
    rows = [
        Row("literal flash", f"{a:g}", _flash({"storage": "per_block"}, alpha=a, **LITERAL), reports=True)
        for a in PAPER_ALPHAS[1:]
    ]
    extra_steps, share = PRESET_STEPS["turbo"]
    rows.append(Row("flash paper", "turbo", _flash({}, extra_steps=extra_steps, share=share), reports=True))
    rows += [
        Row(f"flash {name}", f"{s:.2f}", _flash(blocks, share=s), reports=True)
        for name, blocks in BLOCK_SETTINGS.items()
        for s in BLOCK_SHARES
    ]
    return rows + [Row("blockcache", name, _flash(BLOCK_SETTINGS[name]), reports=True) for name in ALONE]


def peer_rows():
    """The caches that ComfyUI brings, and the peers' methods."""
    rows = [Row("easycache", f"{t:g}", _plain(attach_easycache, t), True) for t in (0.05, 0.1, 0.2, 0.3, 0.5, 1.2)]
    rows += [Row("lazycache", f"{t:g}", _plain(attach_lazycache, t), True) for t in (0.1, 0.2, 0.4, 0.8)]
    rows += [Row("teacache embedding", f"{t:g}", _teacache(t, "embedding")) for t in (0.1, 0.15, 0.2, 0.3)]
    rows += [Row("teacache modulated", f"{t:g}", _teacache(t, "modulated")) for t in (0.05, 0.1, 0.15)]
    rows += [
        Row(f"magcache K{k}", f"{t:g}", _magcache(t, k))
        for k, t in ((4, 0.06), (4, 0.12), (4, 0.24), (8, 0.4), (8, 1.6))
    ]
    rows += [Row("first block", f"{t:g}", _plain(attach_first_block, t)) for t in (0.06, 0.08, 0.1, 0.2)]
    rows += [Row("fora", f"N{n}", _plain(attach_fora, n)) for n in (2, 4)]
    rows += [Row("fora windowed", f"N{n}", _plain(attach_fora, n, BROADCAST_WINDOW)) for n in (2, 4)]
    rows += [Row("pab", "2,6,1", _plain(attach_pab))]
    rows += [
        Row("pab windowed", ",".join(map(str, r)), _plain(attach_pab, *r, BROADCAST_WINDOW))
        for r in ((2, 6, 2), (3, 6, 3), (6, 6, 6))
    ]
    rows += [
        Row(f"taylorseer O{o} first {f}", f"N{n}", _plain(attach_taylorseer, n, o, f))
        for o, f, n in ((1, 3, 3), (1, 3, 5), (1, 6, 3), (1, 6, 5), (2, 6, 3), (2, 6, 5))
    ]
    return rows


def limit_name(reuse, share):
    """The name of the row of the best schedule with as many computed calls as uniform skipping of this share."""
    return f"limit {reuse} {share:.2f}"


def limit_rows():
    """The best schedules that a search with the uncached video at hand found."""
    return [
        Row(f"limit {reuse}", f"{share:.2f}", lambda *_: None, is_searched=True)
        for reuse in REUSES
        for share in LIMIT_SHARES
    ]


def candidate_rows():
    """LFCache in settings other than its defaults."""
    tried = {
        "factors 4,4,4": {"factor_t": 4},
        "factors 1,8,8": {"factor_t": 1, "factor_hw": 8},
        "no trials": {"factor_t": 1, "factor_hw": 1},
        "every call tried": {"try_every_call": True},
        "cutoff 0.5": {"cutoff": 0.5},
        "warmup 2": {"warmup": 2},
        "warmup 4": {"warmup": 4},
    }
    return [
        Row(f"candidate {name}", f"{a:g}", _lfcache(alpha=a, reuse="fitted", **settings), True, True)
        for name, settings in tried.items()
        for a in CANDIDATE_ALPHAS
    ]


def all_rows():
    return [*own_rows(), *peer_rows(), *block_rows(), *candidate_rows(), *limit_rows()]
