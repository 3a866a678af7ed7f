"""A run that reused nothing reports why."""

import pytest
import torch

from precisecache_core import FLOW_MODEL, BlockCacheConfig, CachedRun, LFCacheConfig


def run_of(lfd=1.0, calls=12, scale_advice=None, **settings):
    """A run whose predictions change by `lfd` from call to call (a number, or a function of the call)."""
    run = CachedRun(LFCacheConfig(trial="plain", **settings), None, FLOW_MODEL, 12, scale_advice=scale_advice)
    x = torch.zeros(1, 4, 2, 8, 8)
    value = 0.0
    for call in range(calls):
        sigma = torch.tensor(1 - call / (calls + 1))
        value += lfd(call) if callable(lfd) else lfd

        def model(x=x, sigma=sigma, value=value):
            return x - sigma * torch.full_like(x, value)

        run.denoised(x, sigma, model, lambda small, s, value=value: small - s * torch.full_like(small, value))
    return run


def warnings_of(run):
    return run.report()["warnings"]


@pytest.mark.parametrize(
    "run, reason",
    [
        (dict(alpha=0.0), "alpha is 0"),
        (dict(calls=3), "all 3 calls that may be reused were warm-up"),
        (dict(alpha=0.1), "every low-frequency difference reached the threshold"),
        (dict(lfd=0.0), "the warm-up's predictions did not differ"),
    ],
)
def test_a_run_that_reused_nothing_says_why(run, reason):
    (warning,) = warnings_of(run_of(**run))
    assert reason in warning


def test_a_doubtful_scale_gives_one_advice_and_not_a_second():
    advice, warning = warnings_of(run_of(alpha=0.1, scale_advice="connect calibrate_from"))
    assert advice == "connect calibrate_from"
    assert "reached the threshold" in warning and "turbo" not in warning


def test_the_smallest_difference_is_named():
    run = run_of(lambda call: 1.0 if call < 8 else 0.5, alpha=0.3)
    (warning,) = warnings_of(run)
    assert f"smallest {min(run.journal.lfds[3:]):.3g}, threshold {run.lfcache.threshold:.3g}" in warning


def test_a_run_outside_the_window_says_so():
    run = CachedRun(LFCacheConfig(), None, FLOW_MODEL, 9, sigma_window=(0.01, 0.001))
    x = torch.zeros(1, 4, 2, 8, 8)
    for call in range(9):
        run.denoised(x, torch.tensor(1 - call / 10), lambda: x, lambda small, s: small)
    assert warnings_of(run) == ["no call lay between start_percent and end_percent: nothing was reused"]


def test_a_run_that_reused_gives_no_reason():
    run = run_of(lambda call: 1.0 if call < 4 else 0.01)
    assert "R" in run.journal.decisions and warnings_of(run) == []


def test_a_run_that_stood_aside_says_only_why():
    run = CachedRun(LFCacheConfig(), None, FLOW_MODEL, 12)
    run.lfcache.stand_aside("four steps are too few")
    x = torch.zeros(1, 4, 2, 8, 8)
    run.denoised(x, torch.tensor(0.5), lambda: x, lambda small, s: small)
    assert warnings_of(run) == ["four steps are too few: computing every call"]


def test_a_report_asked_for_twice_is_the_same_and_changes_nothing():
    """A reason reported in mid-run must not stay in later reports, because it may no longer hold."""
    run = CachedRun(LFCacheConfig(trial="plain", alpha=100.0), BlockCacheConfig(), FLOW_MODEL, 12)
    x = torch.zeros(1, 4, 2, 8, 8)
    for call in range(12):
        sigma = torch.tensor(1 - call / 13)
        run.denoised(x, sigma, lambda: x - sigma * sigma * torch.ones_like(x), lambda small, s: small - s * s)
        if call == 2:
            early = run.report()
            assert "warm-up" in early["warnings"][0] and run.report() == early and run.journal.warnings == []
    assert run.report() == run.report() and run.report()["warnings"] == [] and run.report()["reused"] == 9


@pytest.mark.parametrize(
    "run, decisions, reasons",
    [
        # delta_max is 1; the LFD to the last computed call is 1, 2, 3, so that their sums are 1, 3 and 6
        (dict(alpha=3.5, try_every_call=True), "CCCRRCRRCRRC", "wwwbbtbbtbbt"),
        (dict(alpha=0.1), "CCCCCCCCCCCC", "wwwttttttttt"),
        (dict(alpha=3.5, warmup=2), "CCRRCRRCRRCR", "wwbbtbbtbbtb"),
    ],
)
def test_every_call_has_a_reason(run, decisions, reasons):
    report = run_of(**run).report()
    assert (report["decisions"], report["reasons"]) == (decisions, reasons)


def test_a_plan_gives_its_own_reasons():
    """The first calls and the last are computed in any case; a call that cannot be reused was not planned."""
    schedule = [1 - call / 13 for call in range(13)]
    run = CachedRun(LFCacheConfig(share=0.5), None, FLOW_MODEL, 12, schedule=schedule)
    seen = {"w", "p"}
    for call, sigma in enumerate(schedule[:-1]):
        x = torch.zeros(1, 4, 2, 8, 8)
        value = torch.full_like(x, float("nan") if call == 4 else call**2)
        run.denoised(x, torch.tensor(sigma), lambda x=x, s=sigma, v=value: x - s * v, lambda small, s: small * s**3)
    report = run.report()
    assert set(report["reasons"]) >= seen and report["reasons"].startswith("ww")
    for decision, reason in zip(report["decisions"], report["reasons"]):
        assert decision == "R" and reason == "p" or decision == "C" and reason in "wpu"
    assert ("u" in report["reasons"]) == (report["plan"]["unplanned"] > 0)


def test_calls_outside_the_window_and_of_a_run_that_stands_aside():
    x = torch.zeros(1, 4, 2, 8, 8)
    for options, steps, expected in ((dict(sigma_window=(0.01, 0.001)), 9, "o" * 9), ({}, 5, "a" * 5)):
        run = CachedRun(LFCacheConfig(), None, FLOW_MODEL, steps, **options)
        for call in range(steps):
            run.denoised(x, torch.tensor(1 - call / 10), lambda: x, lambda small, s: small)
        assert run.report()["reasons"] == expected


def test_a_call_that_was_to_be_reused_and_had_to_be_computed_is_not_called_planned():
    schedule = [1 - call / 13 for call in range(13)]
    run = CachedRun(LFCacheConfig(share=0.5), None, FLOW_MODEL, 12, schedule=schedule)
    x, revoked = torch.zeros(1, 4, 2, 8, 8), []
    for number, sigma in enumerate(schedule[:-1]):
        call = run.begin(x, torch.tensor(sigma))
        while call.trial is not None:
            call.observe(call.trial.x * 0.5)
        if call.is_reused:
            revoked.append(number)
        call.finish(x * 0.5)
    report = run.report()
    assert revoked and report["decisions"] == "C" * 12
    assert {report["reasons"][number] for number in revoked} == {"n"}


def trials_of(side, agree, factor_t=2, factor_hw=4, blocks_skipped=0):
    """The warnings of a run in which every call is computed and whose trials agree with them, or say the opposite."""
    settings = dict(alpha=0.0, trial="plain", factor_t=factor_t, factor_hw=factor_hw, cutoff=0.2)
    x = torch.zeros(1, 4, 4, side, side)
    run = CachedRun(LFCacheConfig(**settings), None, FLOW_MODEL, 12, latent_shape=x.shape)
    level = small = 0.0
    for call in range(12):
        sigma = torch.tensor(1 - call / 13)
        level, small = level + 1 + call, small + (1 + call if agree else 20 - call)
        full = x - sigma * torch.full_like(x, level)
        run.denoised(x, sigma, lambda full=full: full, lambda s, at, v=small: s - at * torch.full_like(s, v))
    run.journal.blocks_skipped = blocks_skipped
    run.end()
    return [text for text in warnings_of(run) if "agree poorly" in text]


def test_trials_that_agree_poorly_are_warned_of_with_a_remedy():
    (warning,) = trials_of(32, agree=False)
    assert warning.endswith("set factor_t to 1")
    (warning,) = trials_of(32, agree=False, factor_t=1)
    assert warning.endswith("set factor_hw to 2")


def test_trials_that_agree_or_where_nothing_can_be_told_are_not():
    assert trials_of(32, agree=True) == []
    assert trials_of(16, agree=False) == []
    assert trials_of(32, agree=False, blocks_skipped=1) == []
