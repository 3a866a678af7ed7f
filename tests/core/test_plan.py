"""Plans: which calls are computed for a given share, from a rehearsal on a small latent or without one."""

import itertools
import math

import numpy as np
import pytest
import torch
from toys import SHAPE, Toy, linear, noise

from precisecache_core import FLOW_MODEL, CachedRun, LFCacheConfig, flow_sigmas, sample_flow
from precisecache_core.lfcache.latent.frequency import LowBand, low_frequency_difference
from precisecache_core.lfcache.latent.parametrization import Parametrization
from precisecache_core.lfcache.latent.trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING
from precisecache_core.lfcache.plan.costs import (
    DISPLACEMENT,
    ENDING,
    SMALL,
    expected_costs,
    measured_costs,
    rehearsed_costs,
    weight,
)
from precisecache_core.lfcache.plan.levels import forced_levels, levels_left
from precisecache_core.lfcache.plan.plan import Plan, best_calls
from precisecache_core.lfcache.plan.rehearsal import Rehearsal

SIGMAS = flow_sigmas(20, 3.0).tolist()


def total(costs, calls):
    """What a schedule costs: every gap, and the one to the end."""
    return sum(costs[p, j] for p, j in itertools.pairwise([*calls, costs.shape[0]]))


@pytest.mark.parametrize("computed", [2, 3, 4])
@pytest.mark.parametrize("forced", [(), (5,), (1, 6)])
def test_the_best_calls_are_the_best_of_all(computed, forced):
    costs = np.where(np.arange(9)[None] > np.arange(8)[:, None], np.random.default_rng(0).random((8, 9)), np.inf)
    found = best_calls(costs, -1, computed, forced)
    everything = [
        (0, *rest)
        for rest in itertools.combinations(range(1, 8), max(computed - 1, len(forced)))
        if set(forced) <= {0, *rest}
    ]
    assert tuple(found) == min(everything, key=lambda calls: total(costs, calls))


def test_costs_are_the_errors_of_a_sampler():
    """Against the same sums over tensors: what interpolation leaves, and the displacement before it."""
    d = torch.randn(len(SIGMAS) - 1, 5, dtype=torch.float64)
    steps = np.diff(SIGMAS)
    costs = measured_costs((d @ d.T).numpy(), SIGMAS, FLOW)
    for p, j in ((0, 4), (3, 5), (7, 15), (2, 20)):
        left = displaced = 0
        for k in range(p + 1, j):
            share = (SIGMAS[k] - SIGMAS[p]) / (SIGMAS[j] - SIGMAS[p])
            line = torch.lerp(d[p], d[j], share) if j < 20 else d[p]
            left = left + steps[k] * (line - d[k])
            displaced = displaced + steps[k] * (d[p] - d[k])
        left, displaced = left.square().sum(), displaced.square().sum()
        expected = left + DISPLACEMENT * displaced if j < 20 else ENDING * displaced
        assert costs[p, j] == pytest.approx(expected.item() * weight((SIGMAS[p] + SIGMAS[j]) / 2, FLOW), rel=1e-9)
    assert costs[4, 5] == pytest.approx(0, abs=1e-12) and costs[4, 4] == costs[4, 2] == math.inf
    shifted = d + torch.randn(5)
    np.testing.assert_allclose(measured_costs((shifted @ shifted.T).numpy(), SIGMAS, FLOW), costs, rtol=1e-6, atol=1e-9)


def test_flow_and_exploding_models_weigh_the_same_error_alike():
    """x of a flow model is (1 - sigma) times that of an exploding one at the same ratio of noise to signal."""
    for sigma in (0.2, 0.5, 0.9):
        ratio = sigma / (1 - sigma)
        assert weight(sigma, FLOW) / weight(ratio, VARIANCE_EXPLODING) == pytest.approx((1 + ratio) ** 2, rel=0.2)


def test_a_rehearsal_as_expected_changes_nothing_and_another_one_moves_the_calls():
    levels = np.array(SIGMAS[:-1])
    gram = SMALL.gram(levels)
    np.testing.assert_allclose(rehearsed_costs(gram, SIGMAS, FLOW), expected_costs(SIGMAS, FLOW), rtol=1e-6)
    np.testing.assert_allclose(rehearsed_costs(1e4 * gram, SIGMAS, FLOW), 1e3 * expected_costs(SIGMAS, FLOW), rtol=1e-6)
    # much change in the last third of the calls
    bend = np.where(np.arange(20) >= 13, 100.0 * np.random.default_rng(0).standard_normal((8, 20)), 0.0)
    calls = best_calls(expected_costs(SIGMAS, FLOW), -1, 8)
    moved = best_calls(rehearsed_costs(gram + bend.T @ bend, SIGMAS, FLOW), -1, 8)
    assert sum(call >= 13 for call in moved) > sum(call >= 13 for call in calls)


def test_without_a_rehearsal_gaps_grow():
    calls = best_calls(expected_costs(flow_sigmas(50, 3.0).tolist(), FLOW), -1, 12)
    gaps = np.diff(calls)
    assert calls[:2] == [0, 1] and calls[-1] >= 45 and max(gaps) > 4 and all(np.diff(gaps[:-2]) >= 0)


def test_what_is_expected_does_not_depend_on_the_coordinates():
    """The same noise levels as of an exploding and of a preserving model."""
    flow = [0.98, *SIGMAS[1:-1], 0.01]
    ratios = [level / (1 - level) for level in flow]
    calls = best_calls(expected_costs(flow, FLOW), -1, 8)
    for space in (VARIANCE_EXPLODING, VARIANCE_PRESERVING, None):
        assert best_calls(expected_costs(ratios, space), -1, 8) == calls
    # a flow model's first level, rounded
    np.testing.assert_allclose(expected_costs([1.0000002, *SIGMAS[1:]], FLOW), expected_costs(SIGMAS, FLOW), rtol=1e-3)


@pytest.mark.parametrize("share, budget", [(0.4, 8), (0.27, 5), (0.3, 6), (1.0, 20), (0.05, 1)])
def test_a_plan_computes_the_floor_of_its_share(share, budget):
    assert LFCacheConfig(share=share).budget(20) == budget
    plan = Plan(SIGMAS[:-1], budget, (), expected_costs(SIGMAS, FLOW))
    assert plan.budget == budget and len(plan.planned) == max(budget, 3) and plan.planned[:2] == [0, 1]


def test_what_has_to_be_computed_is_taken_from_what_is_left():
    plan = Plan(SIGMAS[:-1], 8, (), expected_costs(SIGMAS, FLOW))
    unplanned = next(i for i in range(20) if i not in plan.planned)
    for level in range(20):
        if plan.computes(SIGMAS[level]) or level == unplanned:
            plan.note_computed(SIGMAS[level])
    assert len(plan.computed) == plan.budget == 8 and plan.unplanned == 1 and unplanned in plan.computed


def test_calls_between_two_levels_belong_to_the_one_above():
    plan = Plan(SIGMAS[:-1], 8, (), expected_costs(SIGMAS, FLOW))
    assert [plan.level(s) for s in SIGMAS[:-1]] == list(range(20))
    assert plan.level((SIGMAS[3] + SIGMAS[4]) / 2) == 3 and plan.level(2.0) == 0 and plan.level(0.0) == 19
    assert plan.level(float(torch.tensor(SIGMAS[7], dtype=torch.float32))) == 7


def test_forced_levels_are_those_outside_the_window_and_after_a_boundary():
    assert forced_levels(SIGMAS, (math.inf, 0.0), ()) == []
    assert forced_levels(SIGMAS, (SIGMAS[2], SIGMAS[17]), ()) == [0, 1, 2, 18, 19]
    assert forced_levels(SIGMAS, (math.inf, 0.0), [(SIGMAS[6] + SIGMAS[7]) / 2]) == [7]
    assert levels_left(SIGMAS) == SIGMAS and levels_left(SIGMAS, SIGMAS[5]) == SIGMAS[5:]
    assert levels_left([1.0, 0.5, 0.7, 0.0]) == levels_left([1.0, 0.0]) == []


def test_low_bands_tell_the_lfd():
    a, b = torch.randn(2, 1, 4, 2, 8, 8)
    low = LowBand(0.2)
    difference = (low.coefficients(a) - low.coefficients(b)).norm()
    torch.testing.assert_close(difference, low_frequency_difference(a, b, 0.2))


@pytest.mark.parametrize("space", [FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING])
def test_a_rehearsal_follows_the_path_of_a_pooled_latent(space):
    """A model that knows the clip, which is the same everywhere: the small latent stays the pooled one."""

    def affine(sigma):
        return torch.ones_like(sigma), -sigma

    model = Parametrization(affine, space).in_derivatives()
    sigmas = SIGMAS if space == FLOW else [10.0 * s + 0.01 for s in SIGMAS]
    z, n = torch.full((1, 1, 2, 4, 4), 0.7), torch.randn(1, 1, 2, 4, 4)

    def noised(sigma):
        if space == FLOW:
            return (1 - sigma) * z + sigma * n
        return (z + sigma * n) / ((1 + sigma**2) ** 0.5 if space == VARIANCE_PRESERVING else 1)

    rehearsal = Rehearsal(model, sigmas, (2, 2, 2), is_matched=True)
    trial, seen = rehearsal.begin(noised(sigmas[0])), []
    while trial is not None:
        seen.append(trial)
        trial = rehearsal.answer(torch.full_like(trial.x, 0.7))
    assert len(seen) == len(rehearsal.derivatives) == len(sigmas) - 1
    pooled_noise = n.reshape(1, 1, 1, 2, 2, 2, 2, 2).mean((3, 5, 7))
    for sigma, trial, d in zip(sigmas, seen, rehearsal.derivatives):
        pooled = noised(sigma).reshape(1, 1, 1, 2, 2, 2, 2, 2).mean((3, 5, 7))
        torch.testing.assert_close(trial.pooled, pooled, rtol=1e-3, atol=1e-4)
        if space != FLOW:
            torch.testing.assert_close(d, pooled_noise, rtol=1e-3, atol=1e-3)
    assert [float(t.level) for t in seen[1:]] == pytest.approx(sigmas[1:-1])


def test_a_run_computes_its_share_and_rehearses_once():
    toy = Toy(linear)
    _, run = sample_flow(toy, noise(), flow_sigmas(20), LFCacheConfig(share=0.4))
    assert toy.sizes[:20] == "S" * 20 and toy.sizes[20:] == "F" * 8
    assert run["computed"] == 8 and run["reused"] == 12 and run["trials"] == 20
    assert run["plan"] == {
        "steps": 20,
        "budget": 8,
        "forced": 2,
        "computed": 8,
        "unplanned": 0,
        "is_rehearsed": True,
    }
    assert run["threshold"] is None and not run["warnings"] and all(v is not None for v in run["lfd"][1:])


def test_more_than_the_share_is_said():
    _, run = sample_flow(Toy(linear), noise(), flow_sigmas(20), LFCacheConfig(share=0.2, end_percent=0.5))
    assert run["computed"] > 4 and run["plan"]["budget"] == 4
    assert any("allow 4 of 20 steps" in text for text in run["warnings"])


@pytest.mark.parametrize("answer", ["none", "nan", "no memory", "late"])
def test_a_rehearsal_that_fails_leaves_the_usual_plan(answer):
    def trial(x, sigma, calls=itertools.count()):
        if answer == "none" or (answer == "late" and next(calls) == 5):
            return None
        if answer == "no memory":
            raise torch.cuda.OutOfMemoryError("simulated")
        return x * math.nan if answer == "nan" else x * 0.5

    run = CachedRun(LFCacheConfig(share=0.4), None, FLOW_MODEL, 20, schedule=SIGMAS)
    x = noise()
    for sigma in torch.tensor(SIGMAS[:-1]):
        run.denoised(x, sigma, lambda: x - sigma * linear(x, sigma), trial)
    report = run.report()
    assert report["computed"] == 8 and report["plan"]["is_rehearsed"] is False
    assert len(report["warnings"]) == 1


def test_a_model_that_does_not_fit_the_gpu_is_planned_without_trials():
    run = CachedRun(LFCacheConfig(share=0.4), None, FLOW_MODEL, 20, schedule=SIGMAS)
    run.lfcache.trial_cost.streamed = 0.57
    x = noise()
    for sigma in torch.tensor(SIGMAS[:-1]):
        run.denoised(x, sigma, lambda: x * 0.5, lambda small, level: small * 0.5)
    report = run.report()
    assert report["trials"] == 0 and report["computed"] == 8 and not report["plan"]["is_rehearsed"]
    (text,) = report["warnings"]
    assert text.startswith("57 % of the model's weights do not fit the GPU")


def test_a_prediction_that_is_not_finite_is_not_reused():
    run = CachedRun(LFCacheConfig(share=0.4), None, FLOW_MODEL, 20, schedule=SIGMAS)
    bad = next(i for i in Plan(SIGMAS[:-1], 8, (), expected_costs(SIGMAS, FLOW)).planned if i > 2)
    x = noise()
    for call, sigma in enumerate(torch.tensor(SIGMAS[:-1])):
        value = math.nan if call == bad else 1.0
        result = run.denoised(x, sigma, lambda: x * value, lambda small, level: None)
        if call == bad + 1:
            assert torch.isfinite(result).all()
    report = run.report()
    assert report["decisions"][bad : bad + 2] == "CC" and report["computed"] <= 9


def test_another_latent_is_planned_for_the_levels_that_are_left():
    run = CachedRun(LFCacheConfig(share=0.4), None, FLOW_MODEL, 20, schedule=SIGMAS)
    for call, sigma in enumerate(torch.tensor(SIGMAS[:-1])):
        x = noise() if call < 10 else noise((1, 4, 4, 6, 6))
        run.denoised(x, sigma, lambda: x * 0.5, lambda small, level: small * 0.5)
    report = run.report()
    assert report["plan"]["steps"] == 10 and report["plan"]["computed"] == 4 and SHAPE != (1, 4, 4, 6, 6)


def test_levels_that_rise_are_decided_by_alpha():
    run = CachedRun(LFCacheConfig(share=0.4), None, FLOW_MODEL, 20, schedule=[*SIGMAS[:10], 0.95, *SIGMAS[10:]])
    x = noise()
    run.denoised(x, torch.tensor(1.0), lambda: x * 0.5, lambda small, level: small * 0.5)
    report = run.report()
    assert report["plan"] is None and any("falling noise levels" in text for text in report["warnings"])
