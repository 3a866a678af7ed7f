"""The command that shows where the constants of plans come from."""

import numpy as np
import pytest
import torch

from benchmarks.methods import Schedule
from benchmarks.study import Study
from benchmarks.tables import plan_costs
from precisecache_core import flow_sigmas
from precisecache_core.lfcache.plan.costs import FULL, SMALL, Profile

SCHEDULE = Schedule("euler", "simple", 10, 2.0, (1, 16, 2, 8, 8))


def test_a_record_holds_the_changes_of_an_uncached_run_and_of_a_rehearsal(bench):
    record = plan_costs.measure(bench, SCHEDULE, 0)
    recording, _ = Study(bench, 10, 2.0, SCHEDULE.shape).record(0)
    d = torch.stack([p.flatten() for p in recording.predictions])
    np.testing.assert_allclose(record["full"], torch.cdist(d, d).square(), rtol=1e-2, atol=1e-2)
    assert record["sigmas"] == pytest.approx([*recording.sigmas, 0.0])
    small = np.array(record["small"])
    assert small.shape == (10, 10) and (small == small.T).all() and (small[~np.eye(10, dtype=bool)] > 0).all()
    assert small.max() < np.array(record["full"]).max()  # it has fewer positions


def made_up(full, small, seed=0, steps=30):
    sigmas = flow_sigmas(steps, 5.0).tolist()
    levels = np.array(sigmas[:-1])
    changes = [(-2 * profile.gram(levels)).tolist() for profile in (full, small)]
    return {"schedule": "made up", "seed": seed, "sigmas": sigmas, **dict(zip(plan_costs.SIZES, changes))}


def test_a_fit_finds_the_profile_that_made_the_changes():
    other = Profile(power=0.9, late=0.2, growth=1.7, floor=0.02)
    profile, spread = plan_costs.fit([plan_costs.Run(made_up(other, SMALL))], "full")
    assert spread < 0.05 and (profile.power, profile.growth) == pytest.approx((0.9, 1.7), abs=0.1)


def test_plans_by_the_true_profiles_are_the_best_and_a_rehearsal_mends_wrong_ones():
    other = Profile(power=1.5, late=0.0, growth=1.8, floor=0.01)
    runs = {"a": [made_up(FULL, SMALL)], "b": [made_up(other, other)]}
    lines = plan_costs.table(runs)
    shown = [text.split() for text in lines if text.startswith(("a ", "b ")) and "in use" in text]
    costs = {words[0]: [float(word) for word in words[-5:]] for words in shown}
    assert costs["a"] == pytest.approx([0] * 5, abs=0.05)
    without, *_, fully = costs["b"]
    assert without > 0.2 and fully < without
