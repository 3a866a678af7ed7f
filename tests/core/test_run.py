"""LFCache over whole runs of toy models whose decisions and results are known by hand."""

import json
import logging
import math

import pytest
import torch
from toys import EAGER, SHAPE, Toy, by_sigma, calls_of, linear, noise, plain

from precisecache_core import (
    FLOW,
    FLOW_MODEL,
    LFCacheConfig,
    LFCacheRun,
    Parametrization,
    build_report,
    dump_report,
    flow_sigmas,
    sample_flow,
)
from precisecache_core.lfcache.latent.trial import match_snr

SMALL = (1, 4, 2, 2, 2)
SMALL_ROOT = math.sqrt(32)  # of the number of elements of SMALL
FIELDS = {
    "run",
    "nodes",
    "sampler",
    "model",
    "latent_shape",
    "steps",
    "calls",
    "computed",
    "reused",
    "trials",
    "decisions",
    "reasons",
    "sigmas",
    "lfd",
    "corrections",
    "speedup",
    "saved_seconds",
    "standing_aside",
    "expectation",
    "plan",
    "alpha",
    "delta_max",
    "threshold",
    "trial_agreement",
    "trial_share",
    "uses_trials",
    "seconds",
    "cache_bytes",
    "blockcache",
    "warnings",
}


# --- decisions and values by hand ---


@pytest.mark.parametrize(
    "reuse, moved",
    [
        # the velocities used, those of reused calls in brackets: 1 .9 .8 (.8) .6 (.6) .4 (.4) .2 (.2)
        ("prediction", 0.59),
        # a reused velocity is v - x_cached + x, and x has moved by -0.1 v: (.72) (.54) (.36) (.18)
        ("residual", 0.57),
        # a linear velocity is extrapolated exactly: 1 .9 .8 (.7) .6 (.5) .4 (.3) .2 (.1)
        ("taylor", 0.55),
        ("fitted", 0.55),
    ],
)
def test_ten_steps_by_hand(reuse, moved):
    # velocity = sigma: the LFD is d over one step and 2 d over two. The threshold is 2.5 d: after a
    # computed call, the next (error d) is reused and the one after it (error d + 2 d) is computed
    d = 0.1 * SMALL_ROOT
    x, run = sample_flow(Toy(by_sigma(lambda s: s)), torch.zeros(SHAPE), flow_sigmas(10), plain(alpha=2.5, reuse=reuse))
    assert run["decisions"] == "CCCRCRCRCR"
    assert run["lfd"][0] is None
    assert run["lfd"][1:] == pytest.approx([d, d, d, 2 * d, d, 2 * d, d, 2 * d, d], rel=1e-5)
    assert (run["delta_max"], run["threshold"]) == pytest.approx((d, 2.5 * d), rel=1e-5)
    torch.testing.assert_close(x, torch.full(SHAPE, -moved), rtol=0, atol=1e-6)


def test_reuse_by_hand_under_another_parametrization():
    # denoised = 3 x + 2 prediction: 44 at x = 10 means 7, so x = 11 gives 33 + 14
    model = Parametrization(lambda sigma: (torch.tensor(3.0), torch.tensor(2.0)), FLOW)
    run = LFCacheRun(plain(alpha=EAGER, warmup=2), model)
    denoised = None
    for x, sigma, answer in ((9, 0.9, 40), (10, 0.8, 44), (11, 0.7, -1)):
        denoised = run.denoised(
            torch.full(SHAPE, float(x)),
            torch.tensor([sigma]),
            lambda: torch.full(SHAPE, float(answer)),
            lambda small, s: small * s,
        )
    assert "".join(run.journal.decisions) == "CCR"
    torch.testing.assert_close(denoised, torch.full(SHAPE, 47.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "reference, first_lfd",
    [
        ("trial", 0.1),  # trial against trial: the bias of 1 cancels
        ("cached", 0.9),  # trial with 0.9 + 1 against the full model with 1.0
    ],
)
def test_the_reference_decides_whether_a_resolution_bias_counts(reference, first_lfd):
    def biased(x, sigma):
        return torch.ones_like(x) * (sigma + (x.shape != SHAPE))

    _, run = sample_flow(Toy(biased), torch.zeros(SHAPE), flow_sigmas(10), plain(alpha=0.0, reference=reference))
    assert run["lfd"][1] == pytest.approx(first_lfd * SMALL_ROOT, rel=1e-5)


@pytest.mark.parametrize("trial", ["plain", "snr_matched"])
def test_each_kind_of_trial_asks_for_its_own_noise_level(trial):
    toy, sigmas = Toy(linear), flow_sigmas(10)
    sample_flow(toy, noise(), sigmas, LFCacheConfig(trial=trial, try_every_call=True))
    asked = [sigma for shape, sigma in toy.calls if shape == SMALL]
    expected = sigmas[:-1] if trial == "plain" else match_snr(FLOW, sigmas[:-1], 32)[1]
    assert asked == pytest.approx(expected.tolist(), rel=1e-6)


# --- what must never change ---


def test_alpha_zero_equals_no_cache():
    start = noise()
    bare, _ = sample_flow(Toy(linear), start, flow_sigmas(12))
    cached, run = sample_flow(Toy(linear), start, flow_sigmas(12), LFCacheConfig(alpha=0))
    assert torch.equal(bare, cached)
    assert run["decisions"] == "C" * 12 and run["trials"] == 12


def test_fewer_trials_decide_the_same():
    start, sigmas = noise(), flow_sigmas(40)
    every, run = sample_flow(Toy(linear), start, sigmas, LFCacheConfig(alpha=2.0, try_every_call=True))
    toy = Toy(linear)
    fewer, sparse = sample_flow(toy, start, sigmas, LFCacheConfig(alpha=2.0))
    assert sparse["decisions"] == run["decisions"] and 5 < sparse["reused"] < 35
    assert torch.equal(every, fewer)
    assert run["trials"] == 40 and sparse["trials"] < 30
    # a call without a trial has no LFD in the report, and every computed call has a trial
    is_tried = [lfd is not None for lfd in sparse["lfd"]]
    assert sum(is_tried[1:]) + 1 == sparse["trials"] == toy.sizes.count("S")
    assert all(tried for tried, d in list(zip(is_tried, sparse["decisions"]))[1:] if d == "C")


@pytest.mark.parametrize("trial", ["snr_matched", "plain"])
@pytest.mark.parametrize("reference", ["trial", "cached"])
@pytest.mark.parametrize("reuse", ["fitted", "corrected", "taylor", "prediction", "residual"])
def test_every_combination_reuses_and_two_runs_agree(trial, reference, reuse):
    start, before = noise(), torch.random.get_rng_state()
    config = LFCacheConfig(alpha=EAGER, trial=trial, reference=reference, reuse=reuse)
    first, run = sample_flow(Toy(linear), start, flow_sigmas(12), config)
    second, again = sample_flow(Toy(linear), start, flow_sigmas(12), config)
    assert torch.equal(first, second) and run["decisions"] == again["decisions"]
    assert len(run["decisions"]) == 12 and run["reused"] > 0
    assert not torch.equal(first, sample_flow(Toy(linear), start, flow_sigmas(12))[0])
    assert torch.equal(torch.random.get_rng_state(), before), "random numbers were drawn"


def test_a_batch_equals_its_samples():
    start = noise((3, *SHAPE[1:]))
    config = LFCacheConfig(alpha=EAGER)
    together, _ = sample_flow(Toy(linear), start, flow_sigmas(10), config)
    apart = torch.cat([sample_flow(Toy(linear), one[None], flow_sigmas(10), config)[0] for one in start])
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)


def test_inputs_stay_unchanged():
    start, sigmas = noise(), flow_sigmas(10)
    before = start.clone(), sigmas.clone()
    sample_flow(Toy(linear), start, sigmas, LFCacheConfig(alpha=EAGER))
    assert torch.equal(start, before[0]) and torch.equal(sigmas, before[1])


@pytest.mark.parametrize("reuse", ["fitted", "corrected", "taylor", "prediction", "residual"])
def test_no_input_and_no_answer_is_written_to_later(reuse):
    run = LFCacheRun(LFCacheConfig(alpha=EAGER, reuse=reuse), FLOW_MODEL)
    xs = [noise() for _ in range(8)]
    before, answers, copies = [x.clone() for x in xs], [], []
    for x, sigma in zip(xs, flow_sigmas(10)):
        answers += calls_of(run, [x], [sigma])
        copies.append(answers[-1].clone())
    assert "R" in run.journal.decisions
    assert all(map(torch.equal, xs, before)) and all(map(torch.equal, answers, copies))


def test_the_model_is_called_on_computed_steps_only():
    run = LFCacheRun(plain(alpha=2.5), FLOW_MODEL)
    toy, was_called = Toy(by_sigma(lambda s: s)), []
    for sigma in flow_sigmas(10)[:-1]:
        toy.calls.clear()
        run.denoised(torch.zeros(SHAPE), sigma, lambda: toy(torch.zeros(SHAPE), sigma), toy)
        was_called.append("F" in toy.sizes)
    assert set(run.journal.decisions) == {"C", "R"}
    assert [d == "C" for d in run.journal.decisions] == was_called


def test_one_read_back_per_call(monkeypatch):
    reads = []
    for name in ("item", "tolist", "numpy", "__float__", "__bool__", "__int__", "__index__"):

        def counted(tensor, *args, original=getattr(torch.Tensor, name), name=name):
            reads.append(name)
            return original(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    run = LFCacheRun(LFCacheConfig(alpha=1.0), FLOW_MODEL)

    def denoise(x, sigma):
        return x - sigma * linear(x, sigma)

    x = noise()
    for sigma in flow_sigmas(12)[:-1]:
        x = x + run.denoised(x, sigma, lambda: denoise(x, sigma), denoise) * 0.01
    assert set(run.journal.decisions) == {"C", "R"}
    assert 0 < len(reads) <= 12, reads


# --- when in doubt, compute ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_calls_at_the_first_sigma_give_no_slope(dtype):
    run = LFCacheRun(LFCacheConfig(alpha=EAGER, warmup=2), FLOW_MODEL)
    x = torch.zeros(SHAPE)
    for velocity, sigma in ((1.0, 0.9), (2.0, 0.9), (-1.0, 0.8)):
        denoised = calls_of(run, [x], [torch.tensor(sigma, dtype=dtype)], by_sigma(lambda s: velocity))[0]
    assert "".join(run.journal.decisions) == "CCR"
    torch.testing.assert_close(denoised, torch.full(SHAPE, -1.6), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ((1, 4, 4, 8, 12), torch.float32),
        ((2, 4, 4, 8, 8), torch.float32),
        (SHAPE, torch.float64),
    ],
)
def test_another_latent_in_mid_run_starts_the_warm_up_again(shape, dtype, caplog):
    run = LFCacheRun(LFCacheConfig(alpha=EAGER), FLOW_MODEL)
    changed = noise(shape).to(dtype)
    answers = calls_of(run, [noise()] * 5 + [changed] * 5, flow_sigmas(10))
    assert "".join(run.journal.decisions) == "CCCRR" + "CCCRR"
    assert answers[-1].shape == changed.shape and answers[-1].dtype == changed.dtype
    assert run.journal.warnings == ["the latent changed during the run: the warm-up starts again"]
    assert len(caplog.records) == 1


def test_an_answer_in_another_dtype_is_kept_in_that_of_x():
    run = LFCacheRun(LFCacheConfig(alpha=EAGER), FLOW_MODEL)
    answers = calls_of(run, [noise()] * 8, flow_sigmas(10), lambda x, sigma: linear(x, sigma).double())
    assert "".join(run.journal.decisions) == "CCCRRRRR"
    assert {a.dtype for a in answers[3:]} == {torch.float32}


@pytest.mark.parametrize("steps", [1, 7])
def test_too_few_steps_equal_the_bare_run(steps, caplog):
    start, reason = noise(), f"{steps} steps are too few"
    toy = Toy(linear)
    x, run = sample_flow(toy, start, flow_sigmas(steps), LFCacheConfig(alpha=EAGER))
    assert torch.equal(x, sample_flow(Toy(linear), start, flow_sigmas(steps))[0])
    assert run["decisions"] == "C" * steps and len(toy.calls) == steps
    assert run["trials"] == run["reused"] == run["cache_bytes"]["lfcache"] == 0
    assert len(run["warnings"]) == 1 and reason in run["warnings"][0]
    assert [(r.levelno, r.name) for r in caplog.records] == [(logging.WARNING, "precisecache")]
    assert caplog.messages[0].startswith("PreciseCache: ") and reason in caplog.messages[0]


def test_eight_steps_are_enough():
    assert sample_flow(Toy(linear), noise(), flow_sigmas(8), LFCacheConfig(alpha=EAGER))[1]["reused"] > 0


def test_an_image_latent_is_cached_too():
    toy = Toy(linear)
    _, run = sample_flow(toy, noise((1, 4, 8, 8)), flow_sigmas(10), LFCacheConfig(alpha=EAGER))
    assert run["decisions"] == "CCCRRRRRRR"
    assert {shape for shape, _ in toy.calls} == {(1, 4, 8, 8), (1, 4, 2, 2)}


def test_a_nan_trial_computes_and_the_run_recovers():
    sigmas = flow_sigmas(12)

    def velocity(x, sigma):
        is_broken = x.shape != SHAPE and sigma == sigmas[5]
        return torch.full_like(x, math.nan) if is_broken else linear(x, sigma)

    x, run = sample_flow(Toy(velocity), noise(), sigmas, plain(alpha=EAGER))
    assert run["decisions"].startswith("CCCRRC") and run["decisions"].endswith("RRRR")
    assert torch.isfinite(x).all()
    assert len(run["warnings"]) == 1 and "not finite" in run["warnings"][0]
    assert build_report([run])["runs"][0]["lfd"][5] is None


def test_a_call_without_noise_is_computed_and_leaves_the_cache_alone():
    run = LFCacheRun(plain(alpha=EAGER), FLOW_MODEL)
    x = noise()
    sigmas = [torch.tensor(s) for s in (0.9, 0.8, 0.7, 0.6, 0.0, 0.5)]
    answers = calls_of(run, [x] * 6, sigmas)
    assert "".join(run.journal.decisions) == "CCCRCR"
    assert torch.equal(answers[4], x)
    velocity = linear(x, sigmas[2])
    torch.testing.assert_close(answers[5], x - 0.5 * velocity, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "start, end, sizes, decisions",
    [
        # 11 steps, so that the step at half of the schedule is the sixth
        (0.5, 1.0, "FFFFF" + "SF" * 3 + "SSS", "CCCCC" + "CCCRRR"),
        (0.0, 0.5, "SF" * 3 + "SSS" + "FFFFF", "CCCRRR" + "CCCCC"),
        (0.2, 0.6, "FF" + "SF" * 3 + "SS" + "FFFF", "CC" + "CCCRR" + "CCCC"),
    ],
)
def test_outside_the_window_every_call_is_computed_without_a_trial(start, end, sizes, decisions):
    toy = Toy(linear)
    config = LFCacheConfig(alpha=EAGER, start_percent=start, end_percent=end, try_every_call=True)
    _, run = sample_flow(toy, noise(), flow_sigmas(11), config)
    assert (toy.sizes, run["decisions"]) == (sizes, decisions)
    assert run["trials"] == sizes.count("S")
    assert run["sigmas"] == pytest.approx(flow_sigmas(11)[:-1].tolist())


# --- the report ---


def broken_when_small(x, sigma):
    return linear(x, sigma) if x.shape == SHAPE else x * math.inf


@pytest.mark.parametrize(
    "velocity, steps, is_measured",
    [
        (linear, 12, True),
        (broken_when_small, 12, None),  # decided without trials; fewer pairs than an agreement needs
        (linear, 7, False),  # stands aside
    ],
)
def test_the_report_is_complete_and_agrees_with_itself(velocity, steps, is_measured):
    toy, sigmas = Toy(velocity), flow_sigmas(steps)
    _, run = sample_flow(toy, noise(), sigmas, plain(alpha=1.0), model_name="toy")
    assert set(run) == FIELDS
    assert (run["model"], run["latent_shape"], run["alpha"]) == ("toy", list(SHAPE), 1.0)
    assert run["steps"] == run["calls"] == len(run["decisions"]) == len(run["lfd"]) == steps
    assert run["computed"] == run["decisions"].count("C") == toy.sizes.count("F")
    assert run["reused"] == run["decisions"].count("R") == steps - run["computed"]
    assert len(run["reasons"]) == steps
    assert run["trials"] == toy.sizes.count("S")
    assert run["sigmas"] == pytest.approx(sigmas[:-1].tolist())
    assert all((run[key] is not None) == (is_measured is not False) for key in ("delta_max", "threshold"))
    assert (run["trial_agreement"] is not None) == bool(is_measured)
    assert (run["trial_share"] is not None) == (run["trials"] > 1) and run["uses_trials"] == bool(is_measured)
    assert set(run["cache_bytes"]) == {"lfcache", "blockcache"} and run["blockcache"] is None
    seconds = run["seconds"]
    assert set(seconds) == {"sampling", "calls", "compute", "trial"}
    assert seconds["sampling"] > seconds["calls"] > seconds["compute"] + seconds["trial"] > 0
    report = build_report([run])
    assert json.loads(dump_report(report)) == report


@pytest.mark.parametrize(
    "reuse, count",
    [
        ("prediction", 1),
        ("taylor", 2),
        ("fitted", 2),
        ("residual", 2),  # the residual, and the prediction that the true LFD is taken against
    ],
)
def test_cache_bytes_count_every_tensor_once(reuse, count):
    _, run = sample_flow(Toy(linear), noise(), flow_sigmas(10), plain(reuse=reuse))
    assert run["cache_bytes"] == {"lfcache": count * noise().nbytes, "blockcache": 0}


@pytest.mark.parametrize(
    "small, expected",
    [
        (lambda s: s**2, 1.0),  # changes as the full model does
        (lambda s: (1 - s) ** 2, -1.0),  # changes most when the full model changes least
    ],
)
def test_trial_agreement_separates_a_good_estimator_from_a_bad_one(small, expected):
    def velocity(x, sigma):
        return torch.ones_like(x) * (sigma**2 if x.shape == SHAPE else small(sigma))

    _, run = sample_flow(Toy(velocity), torch.zeros(SHAPE), flow_sigmas(10), plain(alpha=0.0))
    assert run["trial_agreement"] == pytest.approx(expected)


@pytest.mark.parametrize("warmup, expected", [(4, None), (5, 1.0)])
def test_trial_agreement_needs_four_pairs(warmup, expected):
    # all calls after the warm-up are reused, so there are warmup - 1 pairs
    config = plain(alpha=EAGER, warmup=warmup)
    _, run = sample_flow(Toy(by_sigma(lambda s: s**2)), torch.zeros(SHAPE), flow_sigmas(10), config)
    assert run["computed"] == warmup
    assert run["trial_agreement"] == (expected and pytest.approx(expected))


# --- out of memory ---


@pytest.mark.parametrize(
    "place, decisions, reason",
    [
        ("precisecache_core.lfcache.change.trials.make_trial", "CCCRCRCRCR", "without trials"),
        ("precisecache_core.lfcache.change.trials.Trials.read", "CCCRCRCRCR", "without trials"),
        ("precisecache_core.lfcache.predictions.Predictions.store", "CCCRCCCCCC", "computing every call"),
        ("precisecache_core.lfcache.stage.Stage.keep", "CCCRCCCCCC", "computing every call"),
        ("precisecache_core.lfcache.predictions.Predictions.predict", "CCCRCCCCCC", "computing every call"),
    ],
)
def test_out_of_memory_ends_the_cache_and_not_the_run(place, decisions, reason, monkeypatch):
    """Memory runs out from the fifth call on; for `predict` from the sixth, the next call that would reuse."""
    run = LFCacheRun(plain(alpha=2.5, try_every_call=True), FLOW_MODEL)
    toy, x = Toy(by_sigma(lambda s: s)), torch.zeros(SHAPE)
    sigmas = flow_sigmas(10)[:-1]
    for call, sigma in enumerate(sigmas):
        if call == (5 if place.endswith("predict") else 4):
            monkeypatch.setattr(place, out_of_memory)
        denoised = run.denoised(x, sigma, lambda: toy(x, sigma), toy)
        assert torch.isfinite(denoised).all()
    assert run.journal.decisions == decisions
    (warning,) = run.journal.warnings
    assert "no memory" in warning and reason in warning
    assert not run.stage.source.makes_trials and (run.is_standing_aside == (run.cache_bytes == 0))


def out_of_memory(*args, **kwargs):
    raise torch.cuda.OutOfMemoryError("simulated")
