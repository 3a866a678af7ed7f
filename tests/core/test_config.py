"""A config checks its settings; the error names the setting, the value received and the remedy."""

import math
from dataclasses import FrozenInstanceError

import pytest

from precisecache_core.lfcache.config import PRESET_STEPS, REUSES, TRIALS, LFCacheConfig

OUT_OF_BOUNDS = [
    ("alpha", -0.1),
    ("alpha", math.nan),
    ("alpha", math.inf),
    ("alpha", "0.5"),
    ("alpha", None),
    ("alpha", True),
    ("extra_steps", -1),
    ("extra_steps", math.nan),
    ("extra_steps", True),
    ("warmup", 1),
    ("warmup", 3.0),
    ("warmup", True),
    ("start_percent", -0.01),
    ("start_percent", 1.01),
    ("start_percent", math.nan),
    ("start_percent", 1.0),
    ("end_percent", -0.01),
    ("end_percent", 1.01),
    ("end_percent", True),
    ("factor_t", 0),
    ("factor_t", 2.0),
    ("factor_hw", 0),
    ("factor_hw", True),
    ("cutoff", 0),
    ("cutoff", 0.51),
    ("cutoff", math.nan),
    ("trial", "snr"),
    ("reference", "cache"),
    ("reuse", "Taylor"),
    ("cache_device", "cuda"),
]


@pytest.mark.parametrize("name, value", OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_raises(name, value):
    with pytest.raises(ValueError) as caught:
        LFCacheConfig(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"PreciseCache: {name} must be ") and f"got {value!r}." in message
    assert message.split(f"got {value!r}.")[1].strip(), "no next action"


@pytest.mark.parametrize(
    "name, value",
    [
        ("alpha", 0),
        ("extra_steps", 0),
        ("warmup", 2),
        ("start_percent", 0.99),
        ("end_percent", 0.01),
        ("factor_t", 1),
        ("factor_hw", 1),
        ("cutoff", 0.5),
        ("trial", "plain"),
        ("reference", "cached"),
        ("reuse", "residual"),
        ("cache_device", "cpu"),
    ],
)
def test_the_bounds_themselves_are_allowed(name, value):
    assert getattr(LFCacheConfig(**{name: value}), name) == value


@pytest.mark.parametrize("start, end", [(0.5, 0.5), (0.6, 0.5)])
def test_an_empty_window_raises(start, end):
    with pytest.raises(ValueError, match=rf"^PreciseCache: start_percent .*end_percent \({end}\), got {start}\."):
        LFCacheConfig(start_percent=start, end_percent=end)


def test_base_and_turbo_set_the_steps_and_ignore_a_given_alpha_and_share():
    for preset, (extra_steps, share) in PRESET_STEPS.items():
        expected = LFCacheConfig(extra_steps=extra_steps, share=share)
        assert LFCacheConfig.from_preset(preset, alpha=9, share=1.0) == expected


def test_turbo_computes_fewer_steps_than_base_and_both_reuse_more_of_a_longer_run():
    counts = {
        preset: [LFCacheConfig.from_preset(preset).budget(steps) for steps in (8, 12, 20, 30, 50, 100)]
        for preset in PRESET_STEPS
    }
    assert counts == {"base": [8, 9, 10, 11, 12, 16], "turbo": [8, 8, 8, 9, 10, 12], "flash": [8, 8, 8, 9, 10, 12]}


def test_a_run_over_a_part_of_the_schedule_has_that_part_of_the_extra_steps():
    turbo = LFCacheConfig.from_preset("turbo")
    halves = [turbo.for_part(part).budget(10) for part in (0.5, 0.5)]
    assert halves == [4, 4] and turbo.budget(20) == 8 and turbo.for_part(1.0) == turbo
    plain = LFCacheConfig(share=0.4)
    assert plain.for_part(0.5) == plain and LFCacheConfig(share=1.0, extra_steps=5).budget(20) == 20


def test_budget_takes_a_share_and_ignores_a_given_alpha():
    assert LFCacheConfig.from_preset("budget", alpha=9, share=0.2) == LFCacheConfig(share=0.2)
    assert LFCacheConfig.from_preset("budget") == LFCacheConfig(share=0.4)


@pytest.mark.parametrize("preset", ["custom", "paper"])
def test_custom_and_paper_decide_by_alpha_whatever_the_share(preset):
    assert LFCacheConfig.from_preset(preset, 0.5, 0.2).share is None


def test_custom_takes_alpha_and_every_other_setting():
    assert LFCacheConfig.from_preset("custom", 0.9, warmup=4, reuse="residual") == LFCacheConfig(
        alpha=0.9, warmup=4, reuse="residual"
    )


def test_turbo_keeps_the_other_settings():
    assert LFCacheConfig.from_preset("turbo", warmup=4, factor_hw=2) == LFCacheConfig(
        extra_steps=PRESET_STEPS["turbo"][0], share=PRESET_STEPS["turbo"][1], warmup=4, factor_hw=2
    )


def test_paper_sets_every_open_choice_to_the_papers_text():
    config = LFCacheConfig.from_preset(
        "paper",
        0.6,
        warmup=5,
        start_percent=0.1,
        end_percent=0.9,
        trial="snr_matched",
        reference="trial",
        reuse="taylor",
        factor_t=1,
        factor_hw=2,
        cutoff=0.3,
        cache_device="cpu",
    )
    assert config == LFCacheConfig(
        alpha=0.6,
        warmup=3,
        start_percent=0.0,
        end_percent=1.0,
        trial="plain",
        reference="cached",
        reuse="prediction",
        factor_t=2,
        factor_hw=4,
        cutoff=0.2,
        cache_device="cpu",
        try_every_call=True,
    )


def test_an_unknown_preset_raises():
    with pytest.raises(ValueError, match="^PreciseCache: preset must be .*got 'fast'"):
        LFCacheConfig.from_preset("fast")


@pytest.mark.parametrize("make", [LFCacheConfig, lambda **settings: LFCacheConfig.from_preset("base", **settings)])
def test_an_unknown_setting_raises(make):
    with pytest.raises(TypeError, match="threshold"):
        make(threshold=0.1)


def test_a_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        LFCacheConfig().alpha = 1.0


def test_the_first_choice_is_the_default():
    default = LFCacheConfig()
    assert REUSES == ("corrected", "fitted", "taylor", "prediction", "residual") and default.reuse == REUSES[0]
    assert TRIALS == ("snr_matched", "plain") and default.trial == TRIALS[0]
