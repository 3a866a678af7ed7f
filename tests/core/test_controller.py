"""The decisions of Algorithm 1, computed by hand."""

import math

import pytest

from precisecache_core.controller import LFCacheController

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
        (4.75, 4.75, True),  # started from 0 again
        (0.25, 5.0, False),
        (30.0, 30.0, False),  # above delta_max, which stays the warm-up's
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


def test_the_warm_up_lasts_as_long_as_it_says():
    controller = LFCacheController(alpha=100.0, warmup=5)
    assert [controller.decide(1.0) for _ in range(7)] == [False] * 5 + [True] * 2


def test_alpha_zero_never_reuses():
    controller = LFCacheController(alpha=0.0, warmup=3)
    assert not any(controller.decide(lfd) for lfd in (None, 1.0, 1.0, 0.0, 0.0, 0.5))


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_an_unknown_lfd_computes_and_forgets_the_error(unknown):
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
