"""The presets of the LFCache node that do more than choose settings, `off` and `flash`, and nodes in a row."""

import pytest
import torch
from PreciseCache.nodes.blockcache import PreciseCacheBlockCache
from PreciseCache.nodes.lfcache import PreciseCacheLFCache

STEPS = 16


def lfcache(model, preset):
    return PreciseCacheLFCache.execute(model, preset, 0.5, 0.4).result[0]


def blockcache(model, cache_rate=0.25):
    return PreciseCacheBlockCache.execute(model, cache_rate, 3).result[0]


def settings_of(bench, model):
    """(share of LFCache or None, cache rate of BlockCache or None)"""
    attachment = bench.attachment.attachment_of(model)
    lfcache, blocks = attachment.lfcache, attachment.blockcache
    return lfcache and lfcache.share, blocks and blocks.cache_rate


def test_off_computes_every_step_and_still_reports(bench):
    model = lfcache(bench.model, "off")
    assert torch.equal(bench.sample(model, steps=STEPS), bench.sample(bench.model, steps=STEPS))
    run = bench.report(model)
    assert run["computed"] == STEPS and run["trials"] == 0 and run["warnings"] == [] and run["standing_aside"] == []
    assert run["speedup"] is None and run["seconds"]["sampling"] > 0


def test_off_after_a_cache_takes_it_off(bench):
    model = lfcache(lfcache(bench.model, "flash"), "off")
    assert settings_of(bench, model) == (None, None)
    assert torch.equal(bench.sample(model, steps=STEPS), bench.sample(bench.model, steps=STEPS))


def test_flash_is_turbo_and_blockcache_at_its_defaults(bench):
    flash = lfcache(bench.model, "flash")
    turbo = PreciseCacheBlockCache.execute(lfcache(bench.model, "turbo"), 0.4, 3).result[0]
    assert settings_of(bench, flash) == settings_of(bench, turbo)
    assert torch.equal(bench.sample(flash, steps=30), bench.sample(turbo, steps=30))
    assert bench.report(flash)["blockcache"]["block_calls_skipped"] > 0


@pytest.mark.parametrize("is_before", (False, True))
def test_a_blockcache_node_keeps_its_own_settings_beside_flash(bench, is_before):
    model = lfcache(blockcache(bench.model), "flash") if is_before else blockcache(lfcache(bench.model, "flash"))
    assert settings_of(bench, model)[1] == 0.25


@pytest.mark.parametrize("preset", ("base", "off"))
def test_what_flash_brought_goes_with_it_and_what_a_node_brought_stays(bench, preset):
    assert settings_of(bench, lfcache(lfcache(bench.model, "flash"), preset))[1] is None
    kept = lfcache(lfcache(blockcache(bench.model), "flash"), preset)
    assert settings_of(bench, kept)[1] == 0.25


def test_two_lfcaches_in_a_row_are_said(bench):
    attach, config = bench.attachment.attach, bench.config
    twice = attach(attach(bench.model, "5", lfcache=config(share=0.6)), "6", lfcache=config(share=0.5))
    assert settings_of(bench, twice)[0] == 0.5
    bench.sample(twice, steps=STEPS)
    (warning,) = bench.report(twice)["warnings"]
    assert warning == "two PreciseCache LFCache nodes follow each other: the one nearer to the sampler counts"
    blocks = attach(attach(bench.model, "5", lfcache=config(share=0.5)), "6", blockcache=bench.block_config())
    bench.sample(blocks, steps=STEPS)
    assert not any("follow each other" in warning for warning in bench.report(blocks)["warnings"])


def test_a_program_may_attach_both_at_once(bench):
    both = bench.attachment.attach(bench.model, lfcache=bench.config(share=0.5), blockcache=bench.block_config(0.3))
    assert settings_of(bench, both) == (0.5, 0.3)
    assert settings_of(bench, lfcache(both, "base"))[1] == 0.3
