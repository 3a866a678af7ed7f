"""LFCache under random latents, schedules, settings and faults: what must hold in every case."""

import math
from contextlib import nullcontext
from unittest import mock

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from precisecache_core import FLOW_MODEL, CachedRun, LFCacheConfig, build_report, dump_report
from precisecache_core.lfcache.predictions import Predictions

CASES = 2000
SHAPES = ((1, 4, 4, 8, 8), (2, 3, 1, 6, 10), (1, 2, 5, 9, 7), (1, 4, 8, 8), (2, 4, 2, 3), (1, 3, 2, 2, 2), (1, 1, 40))
TRIAL_FAULTS = ("none", "another shape", "nan", "inf", "no memory")
MODEL_FAULTS = ("nan", "inf", "one nan", "no memory to keep")

configs = st.builds(
    LFCacheConfig,
    alpha=st.one_of(st.just(0.0), st.floats(0.05, 3), st.just(1e6)),
    warmup=st.integers(2, 5),
    trial=st.sampled_from(("snr_matched", "plain")),
    reference=st.sampled_from(("trial", "cached")),
    reuse=st.sampled_from(("fitted", "corrected", "taylor", "prediction", "residual")),
    factor_t=st.integers(1, 3),
    factor_hw=st.integers(1, 5),
    cutoff=st.sampled_from((0.1, 0.2, 0.5)),
    cache_device=st.sampled_from(("model", "cpu")),
    try_every_call=st.booleans(),
    share=st.sampled_from((None, 0.1, 0.4, 0.8)),
)
levels = st.lists(st.floats(0.02, 1.0), min_size=8, max_size=20)
schedules = st.one_of(
    levels.map(lambda s: sorted(s, reverse=True)),
    levels,
    levels.map(lambda s: [v for v in sorted(s, reverse=True)[::2] for _ in range(2)]),
)


@st.composite
def runs(draw):
    sigmas = draw(schedules)
    faults = {}
    for call in draw(st.lists(st.integers(0, len(sigmas) - 1), max_size=3)):
        faults[call] = draw(
            st.one_of(
                st.tuples(st.just("trial"), st.sampled_from(TRIAL_FAULTS)),
                st.tuples(st.just("model"), st.sampled_from(MODEL_FAULTS)),
                st.tuples(st.just("shape"), st.sampled_from(SHAPES)),
            )
        )
    return (
        draw(configs),
        draw(st.sampled_from(SHAPES)),
        sigmas,
        faults,
        draw(st.integers(0, 9)),
        draw(st.one_of(st.none(), st.tuples(st.floats(0.5, 1.0), st.floats(0.0, 0.4)))),
        draw(st.booleans()),
    )


def answer(x, sigma, fault=None):
    """A network's denoised answer, with one fault or without."""
    velocity = torch.tanh(x) * (0.5 + sigma) + sigma**2
    if fault in ("nan", "inf"):
        velocity = velocity * float(fault)
    if fault == "one nan":
        velocity[(0,) * velocity.ndim] = math.nan
    return x - sigma * velocity


def no_memory(*args):
    raise torch.cuda.OutOfMemoryError("simulated")


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_the_invariants_hold(case):
    config, shape, sigmas, faults, seed, window, is_known = case
    generator = torch.Generator().manual_seed(seed)
    schedule = [*sigmas, 0.0] if is_known else None
    run = CachedRun(config, None, FLOW_MODEL, 20, sigma_window=window or (math.inf, 0.0), schedule=schedule)
    computed = since_begin = 0
    is_spoilt = False  # whether the last computed answer was not finite
    for call, level in enumerate(sigmas):
        kind, fault = faults.get(call, (None, None))
        if kind == "shape":
            since_begin = since_begin if fault == shape else 0
            shape = fault
        x = torch.randn(shape, generator=generator)
        before, sigma = x.clone(), torch.tensor([level])
        made = []

        def model():
            made.append(answer(x, sigma, fault if kind == "model" else None))
            return made[-1]

        def trial(small, small_sigma):
            if kind != "trial":
                return answer(small, small_sigma)
            if fault == "no memory":
                raise torch.cuda.OutOfMemoryError("simulated")
            return {"none": None, "another shape": small[..., :1]}.get(fault, answer(small, small_sigma, fault))

        is_inside = window is None or window[1] <= sigma.item() <= window[0]  # in float32, as the run compares it
        with mock.patch.object(Predictions, "store", no_memory) if fault == "no memory to keep" else nullcontext():
            result = run.denoised(x, sigma, model, trial)

        decision = run.journal.decisions[-1]
        assert torch.equal(x, before) and result.shape == x.shape and result.dtype == x.dtype
        assert (decision == "C") == bool(made)
        if made:
            if config.reuse == "corrected":
                assert torch.equal(torch.isfinite(result), torch.isfinite(made[-1]))
            else:
                assert result is made[-1]
            computed += 1
            if is_inside:  # answers outside the window are not kept
                is_spoilt = not torch.isfinite(result).all()
        else:
            assert torch.isfinite(result).all() and not is_spoilt
            assert is_inside
            if run.lfcache.planner is not None:
                assert since_begin >= 1
            else:
                assert config.alpha > 0 and since_begin >= config.warmup
                is_untried = run.journal.lfds[-1] is None or not run.lfcache.stage.source.makes_trials
                assert kind != "trial" or fault in ("none", "another shape", "no memory") or is_untried
        since_begin += is_inside
        assert run.lfcache.cache_bytes <= 4 * max(x.nbytes, math.prod(shape) * 4) or since_begin < 2
    assert len(run.journal.decisions) == len(run.journal.lfds) == len(run.journal.sigmas) == len(sigmas)
    assert run.journal.decisions.count("C") == computed
    dump_report(build_report([run.report()]))
    assert len(run.journal.warnings) <= 6
    run.release()
    assert run.lfcache.cache_bytes == 0
