"""What the plot makes of calls without a trial."""

import pytest

from precisecache_core.controller import LFCacheController
from precisecache_core.plot import accumulated, between_trials


def test_missing_lfds_lie_evenly_between_the_trials():
    lfd = [None, 8.0, 2.0, None, None, 8.0, None, 4.0]
    decisions = "CCRRRRRC"
    assert between_trials(lfd, decisions) == pytest.approx([0, 8, 2, 4, 6, 8, 6, 4])
    assert accumulated(lfd, decisions).tolist() == pytest.approx([0, 0, 2, 6, 12, 20, 26, 0])


def test_after_the_last_trial_the_lfd_stays():
    assert between_trials([None, 1.0, None, None], "CRRR") == [0, 1, 1, 1]


def test_the_curve_is_the_error_that_decided():
    controller = LFCacheController(alpha=50.0, warmup=2)
    lfds, decisions, errors = [], "", []
    for call in range(40):
        if controller.needs_trial:
            lfds.append(float(controller.distance + 1))
            decisions += "CR"[controller.decide(lfds[-1])]
            errors.append((call, controller.error))
        else:
            controller.skip_trial()
            lfds.append(None)
            decisions += "R"
    curve = accumulated(lfds, decisions)
    assert None in lfds and "C" in decisions[10:]
    for call, error in errors:
        assert curve[call] == pytest.approx(error)
