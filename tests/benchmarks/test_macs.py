"""MACs at full size: the counter, the trial's share, and the paper's schedules."""

import pytest
import torch

from benchmarks.counts import counted, model_of, small_latent
from benchmarks.meter import count
from benchmarks.schedules import PUBLISHED, STEPS, forced, spread, tally
from benchmarks.tables.macs import (
    COUNTERS,
    PAPER_READINGS,
    hypothesis,
    trial_of,
)
from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.lfcache.controller import LFCacheController
from testkit.full_size import MODELS, Unsupported, build, layered

pytestmark = pytest.mark.usefixtures("host_of_benchmarks")

SMALL = {
    "wan14b": dict(dim=256, ffn_dim=512, num_heads=2, num_layers=2),
    "hunyuan": dict(hidden_size=256, num_heads=2, depth=1, depth_single_blocks=2),
    "cogvideox-2b": dict(num_attention_heads=6, num_layers=2),
}


@pytest.fixture(params=SMALL)
def name(request):
    try:
        model_of(request.param)
    except Unsupported as reason:
        pytest.skip(str(reason))
    return request.param


def test_meta_counts_what_real_tensors_count(bench, name):
    latent = (16, 2, 8, 12)
    real = build(name, "cpu", torch.float32, **SMALL[name])
    on_meta = count(build(name, **SMALL[name]), name, latent, 2)
    on_cpu = count(real, name, latent, 2, device="cpu", dtype=torch.float32)
    assert on_meta == on_cpu and 0 < on_meta.attention < on_meta.macs


def test_wan_block_equals_the_hand_formula(bench):
    spec = MODELS["wan14b"]
    latent, d, text = spec.latent("720p"), spec.dim, spec.text[0]
    tokens = latent[1] * (latent[2] // 2) * (latent[3] // 2)
    one, none = (counted("wan14b", latent, 1, layers=n) for n in (1, 0))
    products = tokens * (6 * d * d + 2 * d * spec.sizes["ffn_dim"]) + 2 * text * d * d
    attention = 2 * tokens * tokens * d + 2 * tokens * text * d
    assert one.macs - none.macs == pytest.approx(products + attention, rel=0.01)
    assert one.attention - none.attention == pytest.approx(attention, rel=0.01)


def test_rows_and_blocks_add_up(bench, name):
    latent = (16, 2, 8, 12)
    assert counted(name, latent, 2).macs == pytest.approx(2 * counted(name, latent, 1).macs)
    spec = MODELS[name]
    none, three, six = (counted(name, latent, 1, layers=n).macs for n in (0, 3, 6))
    assert six - three == pytest.approx(three - none)
    assert counted(name, latent, 1).macs == pytest.approx(none + spec.blocks * (three - none) / 3, rel=0.01)
    assert sum(layered(name, spec.blocks).values()) == spec.blocks


def test_trial_shares(bench):
    latent = MODELS["wan14b"].latent("720p")
    call = counted("wan14b", latent, 2).macs
    trial, small = trial_of("wan14b", latent)
    assert small == small_latent("wan14b", latent, 2, 4) == (16, 10, 22, 40)
    # the trial has less than 1 / 32 of the positions, and attention shrinks with their square
    tokens = 10 * 11 * 20 / (21 * 45 * 80)
    assert tokens**2 < trial.macs / call < tokens
    assert trial.macs / call <= 0.012
    assert trial_of("wan14b", latent, rows=1)[0].macs == pytest.approx(trial.macs / 2)


def test_papers_baselines(bench):
    products, scores, hooks = list(COUNTERS)[:3]
    for row, reading in PAPER_READINGS.items():
        paper, branches = PUBLISHED[row].macs["none"], MODELS[reading[0]].branches
        assert 0.99 < hypothesis(products, *reading, branches) / paper < 1
        assert 0.993 < hypothesis(scores, *reading, branches) / paper < 1
        assert hypothesis(hooks, *reading, branches) / paper < 0.5


@pytest.mark.parametrize("computed", (3, 17, 23, 31, 50))
def test_spread(computed):
    decisions = spread(STEPS, computed)
    assert len(decisions) == STEPS and decisions.count("C") == computed and decisions.startswith("CCC")


def test_tally_counts_what_blockcache_skips():
    decisions = "CCCRRCRCCCCRC"
    run = tally(decisions, 10, BlockCacheConfig(warmup=3, reuse_steps=3, cache_rate=0.4))
    # computed calls: two before the refresh, a refresh, three that skip four blocks, a refresh, two that skip
    assert (run.decisions, run.trials, run.skipped) == (decisions, len(decisions), 5 * 4)
    assert tally(decisions, 10).skipped == 0


def test_forced_restores_the_controller():
    before = LFCacheController.decide
    with pytest.raises(KeyError), forced("C", LFCacheController):
        raise KeyError
    assert LFCacheController.decide is before
