"""The estimate of how much faster a run was, and how it is said."""

import pytest
import torch

from precisecache_core import FLOW_MODEL, BlockCacheConfig, CachedRun, LFCacheConfig, flow_sigmas
from precisecache_core.record import stopwatch
from precisecache_core.record.report import summary_line
from precisecache_core.record.speedup import Speedup, estimate, saved_text


@pytest.mark.parametrize(
    "sampling, calls, computed, is_whole, expected",
    [
        # 2 of 4 calls reused: 2 x 10 s less, 1 s of trials and our own work more
        (21.0, [10, 10.4, 0.3, 0.3], [10, 10], [True, True], Speedup((21 + 19) / 21, 19.0)),
        # the first call waited for a compiler: it says nothing about the others
        (80.0, [60, 10, 10, 0], [60, 10, 10], [True, True, True], Speedup(90 / 80, 10.0)),
        # the second call skipped blocks
        (16.0, [10, 6], [10, 6], [True, False], Speedup(20 / 16, 4.0)),
        # trials that saved little
        (25.0, [10, 14, 1], [10, 10], [True, True], Speedup(30 / 25, 5.0)),
        # and nothing at all
        (31.0, [10, 20, 1], [10, 1], [True, False], Speedup(30 / 31, -1.0)),
    ],
)
def test_by_hand(sampling, calls, computed, is_whole, expected):
    found = estimate(sampling, calls, computed, is_whole)
    assert (found.ratio, found.saved) == pytest.approx((expected.ratio, expected.saved))


@pytest.mark.parametrize(
    "sampling, calls, computed, is_whole",
    [
        (20.0, [10, 10], [10, 10], [True, True]),  # nothing reused or skipped
        (0.0, [], [], []),
        (6.0, [6, 0], [6], [False]),  # no whole call to compare with
    ],
)
def test_nothing_to_estimate_from(sampling, calls, computed, is_whole):
    assert estimate(sampling, calls, computed, is_whole) is None


@pytest.mark.parametrize(
    "seconds, expected",
    [(0.84, "0.8 s"), (12.4, "12 s"), (59.4, "59 s"), (370, "6 min 10 s"), (3599.6, "1 h 0 min"), (3900, "1 h 5 min")],
)
def test_seconds_as_people_say_them(seconds, expected):
    assert saved_text(seconds) == expected


def test_the_log_line_begins_with_it():
    run = {"steps": 30, "calls": 30, "reused": 18, "blockcache": None, "speedup": 2.4, "saved_seconds": 370.0}
    assert summary_line(run) == "2.4x faster (estimate), saved 6 min 10 s: reused 18 of 30 steps"
    run |= {"speedup": 0.97, "saved_seconds": -3.2}
    assert summary_line(run) == "0.97x as fast (estimate), lost 3.2 s: reused 18 of 30 steps"
    run |= {"speedup": None, "saved_seconds": None}
    assert summary_line(run) == "reused 18 of 30 steps"


class Clock:
    """A clock that stands still while nothing is computed."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def sample(clock, lfcache, steps=20, trial=1.0):
    """(report, seconds that computing every call takes) of a loop; the model takes 10 s, its first call 60."""
    run = CachedRun(lfcache, None, FLOW_MODEL, steps)
    x = torch.ones(1, 1, 2, 8, 8)

    seconds = iter([60])

    def model():
        clock.now += next(seconds, 10)
        return x * 0.5

    def trial_model(small, sigma):
        clock.now += trial
        return small * 0.5

    with run.sampling():
        for sigma in flow_sigmas(steps)[:-1]:
            run.denoised(x, sigma, model, trial_model)
            clock.now += 0.25  # the sampler's own
    run.end()
    return run.report(), 10 * steps + 50 + 0.25 * steps


@pytest.mark.parametrize("share", (None, 0.4))
def test_it_is_exact_where_every_call_takes_equally_long(clock, share):
    report, uncached = sample(clock, LFCacheConfig(alpha=1.0, share=share))
    assert report["reused"] > 5 and report["trials"] > 0
    assert report["speedup"] == pytest.approx(uncached / report["seconds"]["sampling"])
    assert report["saved_seconds"] == pytest.approx(uncached - report["seconds"]["sampling"])


def test_a_run_that_reuses_nothing_has_none(clock):
    report, _ = sample(clock, LFCacheConfig(alpha=0.0))
    assert report["reused"] == 0 and report["speedup"] is None and report["saved_seconds"] is None


def test_during_the_run_the_calls_so_far_count(clock):
    run = CachedRun(LFCacheConfig(alpha=1.0, share=0.4), None, FLOW_MODEL, 20)
    x, sigmas = torch.ones(1, 1, 2, 8, 8), flow_sigmas(20)[:-1]

    def model():
        clock.now += 10
        return x * 0.5

    seen = []
    for sigma in sigmas:
        run.denoised(x, sigma, model, lambda small, level: small * 0.5)
        seen.append(run.journal.speedup())
    reused = [i for i, decision in enumerate(run.journal.decisions) if decision == "R"]
    assert seen[reused[0] - 1] is None
    for i in range(reused[0], 20):
        computed = run.journal.decisions[: i + 1].count("C")
        assert seen[i].ratio == pytest.approx((i + 1) / computed)


def test_a_call_that_skips_blocks_is_not_taken_for_a_whole_one(clock):
    config = BlockCacheConfig(0.5, warmup=2, reuse_steps=3)
    run = CachedRun(None, config, FLOW_MODEL, 10)
    x = torch.ones(1, 4, 8)

    def model():
        block_pass = run.blockcache.open_pass([("cond", slice(None))])
        streams = {"img": x}
        for i in range(4):

            def compute(streams=streams, i=i):
                clock.now += 1
                return {"img": streams["img"] + i}

            streams = block_pass.run_block(("block", i), streams, compute)
        block_pass.close()
        return torch.ones(1, 1, 2, 8, 8)

    with run.sampling():
        for sigma in flow_sigmas(10)[:-1]:
            run.denoised(torch.ones(1, 1, 2, 8, 8), sigma, model, None)
    report = run.report()
    assert report["blockcache"]["block_calls_skipped"] > 0
    assert report["speedup"] == pytest.approx(40 / report["seconds"]["sampling"])


def test_a_device_whose_times_are_not_known_has_none():
    run = CachedRun(LFCacheConfig(share=0.4), None, FLOW_MODEL, 20, device="mps")
    x = torch.ones(1, 1, 2, 8, 8)
    for sigma in flow_sigmas(20)[:-1]:
        run.denoised(x, sigma, lambda: x * 0.5, lambda small, level: small * 0.5)
    assert run.report()["reused"] > 0 and run.report()["speedup"] is None


def test_what_stands_aside_is_named():
    run = CachedRun(LFCacheConfig(), BlockCacheConfig(), FLOW_MODEL, 4)
    assert run.report()["standing_aside"] == ["lfcache", "blockcache"]
    run = CachedRun(None, BlockCacheConfig(), FLOW_MODEL, 20)
    assert run.report()["standing_aside"] == []
