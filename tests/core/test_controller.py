"""The decisions of Algorithm 1, computed by hand."""

import math

import pytest

from precisecache_core.lfcache.controller import LFCacheController

UNKNOWN = [None, math.nan, math.inf]


def warmed_up(alpha=0.5, delta_max=10.0):
    controller = LFCacheController(alpha, warmup=3)
    for lfd in (None, delta_max, delta_max / 2):
        controller.decide(lfd)
    return controller


def test_ten_calls_by_hand():
    # alpha 0.5, largest LFD of the warm-up 10: the threshold is 5
    table = [
        # lfd, error after adding it, reused
        (None, None, False),  # warm-up: nothing to compare with
        (8.0, None, False),  # warm-up
        (10.0, None, False),  # warm-up: delta_max
        (2.0, 2.0, True),
        (2.5, 4.5, True),
        (0.5, 5.0, False),  # 5 < 5 is false
        (4.75, 4.75, True),  # the error starts from 0 again
        (0.25, 5.0, False),
        (30.0, 30.0, False),  # above delta_max, which stays that of the warm-up
        (4.5, 4.5, True),
    ]
    controller = LFCacheController(alpha=0.5, warmup=3)
    thresholds = []
    for lfd, error, is_reused in table:
        assert controller.decide(lfd) is is_reused
        if error is not None:
            assert controller.error == (error if is_reused else 0)
        thresholds.append(controller.threshold)
    assert thresholds == [None, None] + [5.0] * 8
    assert controller.delta_max == 10


def test_the_warm_up_lasts_as_many_calls_as_it_is_set_to():
    controller = LFCacheController(alpha=100.0, warmup=5)
    assert [controller.decide(1.0) for _ in range(7)] == [False] * 5 + [True] * 2


def test_alpha_zero_never_reuses():
    controller = LFCacheController(alpha=0.0, warmup=3)
    assert not any(controller.decide(lfd) for lfd in (None, 1.0, 1.0, 0.0, 0.0, 0.5))


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_an_unknown_lfd_computes_and_resets_the_error(unknown):
    controller = warmed_up()
    assert controller.decide(4.0)
    assert not controller.decide(unknown)
    assert controller.error == 0
    assert controller.decide(4.0)  # 4 + 4 would have reached the threshold of 5


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_an_unknown_lfd_does_not_become_delta_max(unknown):
    controller = LFCacheController(alpha=0.5, warmup=3)
    for lfd in (None, 2.0, unknown):
        controller.decide(lfd)
    assert controller.threshold == 1.0


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_a_warm_up_without_any_lfd_never_reuses(unknown):
    controller = LFCacheController(alpha=10.0, warmup=3)
    assert not any(controller.decide(lfd) for lfd in (None, unknown, unknown, 0.0, 0.1, 0.0))
    assert controller.delta_max is None and controller.threshold is None


def lfds(controller, function, calls):
    """Let the controller decide calls whose LFD is a function of distance; returns decisions and tried calls."""
    decisions, tried = "", ""
    for _ in range(calls):
        if controller.needs_trial:
            reused = controller.decide(function(controller.distance + 1))
            decisions, tried = decisions + "CR"[reused], tried + "T"
        else:
            controller.skip_trial()
            decisions, tried = decisions + "R", tried + "-"
    return decisions, tried


def test_the_next_lfd_replaces_the_estimate_for_untried_calls():
    controller = warmed_up(alpha=10.0)  # threshold 100
    assert not controller.decide(200.0)
    for distance in (1, 2, 3):
        assert controller.needs_trial is (distance in (1, 3))
        assert controller.decide(4.0 * distance) if controller.needs_trial else controller.skip_trial() is None
    assert controller.error == pytest.approx(4 + 8 + 12)


def test_trials_get_rarer_the_farther_the_threshold_is():
    controller = warmed_up(alpha=1e6)
    controller.decide(None)
    decisions, tried = lfds(controller, lambda distance: float(distance), 20)
    # tried at distance 1, then at no more than about twice the last distance: 3, 7, 15
    assert (decisions, tried) == ("R" * 20, "T-T---T-------T-----")


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0, 10.0, 40.0])
@pytest.mark.parametrize("power", [0.5, 1.0, 1.5])
def test_trials_that_are_left_out_would_not_have_changed_a_decision(alpha, power):
    def growing(distance):
        return distance**power

    every, fewer = (LFCacheController(alpha, 3, try_every_call=e) for e in (True, False))
    for controller in (every, fewer):
        for lfd in (None, 10.0, 5.0):
            controller.decide(lfd)
    decisions, tried = lfds(every, growing, 60)
    assert tried == "T" * 60
    found, tried = lfds(fewer, growing, 60)
    if power == 1.0:
        assert found == decisions  # linear growth is estimated exactly
    # with other growth, the computed calls differ by at most one, or by a tenth of their number
    assert abs(found.count("C") - decisions.count("C")) <= max(1, decisions.count("C") // 10)
    assert tried.count("T") < 60 or alpha < 3


def test_a_sudden_change_is_noticed_at_twice_its_distance_at_the_latest():
    controller = warmed_up(alpha=100.0)  # threshold 1000
    controller.decide(None)
    decisions, _ = lfds(controller, lambda distance: 0.1 if distance < 10 else 5000.0, 20)
    assert "C" in decisions[:16]


def test_an_untried_call_is_never_in_the_warm_up_nor_right_after_a_computed_call():
    controller = LFCacheController(alpha=1e6, warmup=3)
    for lfd in (None, 10.0, 5.0):
        assert controller.needs_trial
        controller.decide(lfd)
    assert controller.needs_trial
    assert controller.decide(1.0) and not controller.needs_trial
    assert not controller.decide(math.nan) and controller.needs_trial
