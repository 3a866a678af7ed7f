"""Reuse decided without trials, on toys whose true LFDs are known by hand (see toys.py)."""

import math

import pytest
import torch
from toys import EAGER, SHAPE, Toy, by_sigma, calls_of, linear, noise, plain

from precisecache_core import FLOW_MODEL, CachedRun, LFCacheConfig, LFCacheRun, flow_sigmas, sample_flow
from precisecache_core.lfcache.change import ComputedCalls
from precisecache_core.lfcache.latent.frequency import LowBand

ROOT = math.sqrt(1024)  # of the number of elements of SHAPE
UNTRIED = {"factor_t": 1, "factor_hw": 1}


class Known:
    """A source of LFDs that is given computed calls by hand (noise level, LFD), and asked at other noise levels."""

    def __init__(self, first):
        config = LFCacheConfig(warmup=first + 1)
        self.source = ComputedCalls(config, FLOW_MODEL, torch.Size(SHAPE), LowBand(config.cutoff))

    def store(self, sigma, lfd):
        true = torch.tensor(0.0 if lfd is None else lfd)
        self.source.keep(sigma, torch.zeros(SHAPE), None, true, is_first=lfd is None)

    def at(self, sigma):
        return self.source.read(torch.tensor(sigma), None, is_warmup=False).lfd


def test_the_lfd_grows_in_proportion_to_the_distance_in_sigma():
    known = Known(2)
    assert known.at(0.9) is None and known.source.largest() is None
    known.store(0.9, None)
    assert known.at(0.8) is None
    known.store(0.7, 4.0)  # 20 per unit of sigma
    assert known.at(0.65) == pytest.approx(1.0) and known.at(0.8) == pytest.approx(2.0)
    known.store(0.7, 9.0)  # two calls at one noise level give no rate
    assert known.at(0.65) == pytest.approx(1.0)
    known.store(0.5, math.nan)
    assert math.isnan(known.at(0.4)) and known.source.largest() == 4.0
    known.store(0.3, 90.0)
    assert known.source.largest() == 4.0  # of the first two only


@pytest.mark.parametrize("settings", [UNTRIED, {}], ids=["without trials", "with trials"])
@pytest.mark.parametrize("is_seen", [True, False], ids=["seen by a trial", "not seen"])
def test_the_first_call_beyond_a_boundary_is_computed(settings, is_seen):
    sigmas = flow_sigmas(12)
    edge = (sigmas[7] + sigmas[8]).item() / 2

    def velocity(x, sigma):
        # a jump that trials see or do not see (trials run without ControlNets)
        return torch.ones_like(x) * (sigma + 5 * (sigma <= edge) * (is_seen or x.shape == SHAPE))

    def decisions(boundaries):
        run = LFCacheRun(plain(alpha=1e4, **settings), FLOW_MODEL, boundaries=boundaries)
        calls_of(run, [torch.zeros(SHAPE)] * 12, sigmas[:-1], velocity)
        return "".join(run.journal.decisions)

    assert decisions((edge,)) == "CCCRRRRRCRRR"
    assert decisions((0.99, 1.0, 0.001)) == "CCCRRRRRRRRR"


def test_ten_steps_by_hand():
    # velocity = sigma: the LFD is d per step, and so is its extrapolation. Threshold 2.5 d.
    d = 0.1 * ROOT
    toy = Toy(by_sigma(lambda s: s))
    x, run = sample_flow(toy, torch.zeros(SHAPE), flow_sigmas(10), plain(alpha=2.5, **UNTRIED))
    assert run["decisions"] == "CCCRCRCRCR" and toy.sizes == "F" * 6
    assert run["lfd"][:3] == [None] * 3
    assert run["lfd"][3:] == pytest.approx([d, 2 * d, d, 2 * d, d, 2 * d, d], rel=1e-5)
    assert (run["delta_max"], run["threshold"]) == pytest.approx((d, 2.5 * d), rel=1e-5)
    assert run["trials"] == 0 and run["seconds"]["trial"] == 0
    torch.testing.assert_close(x, torch.full(SHAPE, -0.59), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "shape, settings, reason",
    [
        ((1, 4, 1, 2, 3), {}, "too small"),
        ((1, 4, 3, 3), {}, "too small"),
        ((1, 200), {}, "2 dimensions"),
        ((4, 8, 8), {}, "3 dimensions"),
        (SHAPE, UNTRIED, "factor_t and factor_hw are 1"),
    ],
)
def test_a_latent_that_cannot_shrink_is_cached_without_trials(shape, settings, reason, caplog):
    toy = Toy(linear)
    x, run = sample_flow(toy, noise(shape), flow_sigmas(10), LFCacheConfig(alpha=EAGER, **settings))
    assert run["decisions"] == "CCCRRRRRRR" and len(toy.calls) == 3
    assert torch.isfinite(x).all() and x.shape == shape
    assert len(run["warnings"]) == len(caplog.records) == 1
    assert reason in run["warnings"][0] and "without trials" in run["warnings"][0]


def test_alpha_zero_equals_no_cache():
    start = noise()
    cached, run = sample_flow(Toy(linear), start, flow_sigmas(12), LFCacheConfig(alpha=0, **UNTRIED))
    assert torch.equal(cached, sample_flow(Toy(linear), start, flow_sigmas(12))[0])
    assert run["decisions"] == "C" * 12


@pytest.mark.parametrize("answer", [lambda x: None, lambda x: x[..., :1]], ids=["none", "another shape"])
def test_a_failed_trial_ends_the_trials_and_not_the_reuse(answer):
    run = LFCacheRun(plain(alpha=2.5), FLOW_MODEL)
    toy, x = Toy(by_sigma(lambda s: s)), torch.zeros(SHAPE)
    for call, sigma in enumerate(flow_sigmas(10)[:-1]):
        run.denoised(x, sigma, lambda: toy(x, sigma), lambda small, s: answer(small) if call == 4 else small - s * s)
    assert "".join(run.journal.decisions) == "CCCRCRCRCR"
    assert run.stage.controller.delta_max == pytest.approx(0.1 * ROOT, rel=1e-5)  # now measured on computed calls
    assert run.journal.trials == 4 and len(run.journal.warnings) == 1


def test_trials_stop_if_they_are_never_finite():
    def velocity(x, sigma):
        return torch.full_like(x, math.nan) if x.shape != SHAPE else linear(x, sigma)

    _, run = sample_flow(Toy(velocity), noise(), flow_sigmas(12), plain(alpha=EAGER))
    assert run["decisions"] == "CCCC" + "R" * 8 and run["trials"] == 4
    assert len(run["warnings"]) == 2 and "without trials" in run["warnings"][1]


def test_trials_go_on_if_bad_ones_are_far_apart():
    run = LFCacheRun(plain(alpha=2.5), FLOW_MODEL)
    toy, x = Toy(by_sigma(lambda s: s)), torch.zeros(SHAPE)
    for call, sigma in enumerate(flow_sigmas(30)[:-1]):
        bad = math.nan if call in (6, 14, 22) else 1.0
        run.denoised(x, sigma, lambda: toy(x, sigma), lambda small, s, bad=bad: small - s * s * bad)
    assert run.stage.source.makes_trials and "R" in run.journal.decisions[23:]
    assert run.journal.warnings == ["a low-frequency difference was not finite: that call was computed"]


def test_if_trials_end_in_the_warm_up_its_computed_calls_give_the_scale():
    velocities = [0.0, 0.1, 0.2, 1.2, 1.3, 1.4] + [1.4] * 6
    run = LFCacheRun(plain(alpha=0.5, warmup=6), FLOW_MODEL)
    x = torch.zeros(SHAPE)
    for call, (sigma, velocity) in enumerate(zip(flow_sigmas(12)[:-1], velocities)):

        def trial(small, s, call=call, velocity=velocity):
            return None if call == 2 else small - s * velocity

        run.denoised(x, sigma, lambda sigma=sigma, v=velocity: x - sigma * v, trial)
    assert run.stage.controller.delta_max == pytest.approx(1.0 * ROOT, rel=1e-4)
    assert "R" in run.journal.decisions[6:]


def test_after_trials_end_all_lfds_have_one_scale_and_the_agreement_stays_that_of_the_trials():
    run = CachedRun(plain(alpha=2.5), None, FLOW_MODEL, 30)
    toy, x = Toy(by_sigma(lambda s: s)), torch.zeros(SHAPE)
    pairs = []
    for call, sigma in enumerate(flow_sigmas(30)[:-1]):
        run.denoised(x, sigma, lambda: toy(x, sigma), lambda small, s, call=call: None if call > 16 else small - s * s)
        pairs.append(run.lfcache.trial_agreement())
    report = run.report()
    step = ROOT / 30
    assert report["delta_max"] == pytest.approx(step, rel=1e-4) and report["threshold"] == pytest.approx(2.5 * step)
    known = [v / step for v in report["lfd"] if v is not None]
    assert known == pytest.approx([round(v) for v in known], abs=1e-3)  # multiples of a step
    assert pairs[17:] == [pairs[16]] * 13 and pairs[16] is not None  # counts only the calls with a trial
    no_trials = sample_flow(Toy(linear), noise(), flow_sigmas(30), plain(alpha=0.5, **UNTRIED))[1]
    assert no_trials["trial_agreement"] is None and no_trials["trials"] == 0


def test_trials_are_made_again_when_a_too_small_latent_grows():
    run = LFCacheRun(LFCacheConfig(alpha=EAGER), FLOW_MODEL)
    xs = [torch.zeros(1, 4, 1, 2, 3)] * 5 + [torch.zeros(SHAPE)] * 6
    calls_of(run, xs, flow_sigmas(11)[:-1])
    assert run.journal.trials > 0 and run.stage.source.makes_trials


def test_after_an_answer_that_is_not_finite_calls_are_computed():
    sigmas = flow_sigmas(12)

    def velocity(x, sigma):
        return by_sigma(lambda s: math.nan if s == sigmas[5] else s)(x, sigma)

    run = LFCacheRun(plain(alpha=2.5, **UNTRIED), FLOW_MODEL, boundaries=(sigmas[5].item(),))
    calls_of(run, [torch.zeros(SHAPE)] * 12, sigmas[:-1], velocity)
    # the sixth call crosses the boundary, is computed and is not finite; two later ones give a finite LFD again
    assert "".join(run.journal.decisions) == "CCCRCCCCRCRC"


def test_one_read_back_per_call_and_one_per_computed_call(monkeypatch):
    reads = []
    original = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: (reads.append("item"), original(tensor))[1])
    floated = torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: (reads.append("float"), floated(tensor))[1])
    run = LFCacheRun(plain(alpha=2.5, **UNTRIED), FLOW_MODEL)
    for sigma in flow_sigmas(10)[:-1]:
        run.denoised(torch.zeros(SHAPE), sigma, lambda: torch.zeros(SHAPE) - sigma * sigma, None)
    assert "R" in run.journal.decisions
    assert len(reads) <= 10 + run.journal.decisions.count("C")


def test_lfds_measured_at_an_earlier_size_stay_when_the_latent_becomes_too_small():
    run = LFCacheRun(plain(alpha=2.5), FLOW_MODEL)
    sigmas = flow_sigmas(16)
    calls_of(run, [torch.zeros(SHAPE)] * 8, sigmas[:8], by_sigma(lambda s: s))
    before = run.journal.lfds
    assert before[0] is None and None not in before[1:4]
    calls_of(run, [torch.zeros(1, 4, 1, 2, 3)] * 8, sigmas[8:16], by_sigma(lambda s: s))
    assert run.journal.lfds[:8] == before and not run.stage.source.makes_trials
    assert "too small" in run.journal.warnings[1]
