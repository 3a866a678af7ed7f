"""Trials that take too much time: when they end, and what the run says. Every time is given, none is measured."""

import math

import pytest
import torch
from toys import SHAPE, Toy, by_sigma, plain

from precisecache_core import FLOW_MODEL, CachedRun, flow_sigmas
from precisecache_core.lfcache.trial_cost import LIMIT, LIMIT_STREAMED, SHORTEST_CALL, TrialCost, share_of
from precisecache_core.record.journal import Journal
from precisecache_core.record.stopwatch import Stopwatch

STEPS = 30
STREAMED = 0.57


class Times(Stopwatch):
    """A stopwatch of a GPU on which every trial and every computed call takes a given time.

    lag: how many of the last spans the GPU has not finished yet.
    """

    def __init__(self, trial, call, lag=1):
        super().__init__("cpu")
        self.taken = {"trial": trial, "compute": call}
        self.lag = lag

    def each(self, name):
        return [self.taken.get(name, 0.0)] * len(self.spans.get(name, []))

    def finished(self, name):
        times = self.each(name)
        return times[: max(0, len(times) - self.lag)]


def sampled(times, streamed=STREAMED, config=None, **options):
    """The CachedRun of a model whose true LFDs and whose trials' LFDs have the same ratio throughout."""
    run = CachedRun(config or plain(alpha=2.5), None, FLOW_MODEL, STEPS, **options)
    run.journal.stopwatch = times
    run.lfcache.trial_cost.streamed = streamed
    toy, x = Toy(by_sigma(lambda s: s)), torch.zeros(SHAPE)
    for sigma in flow_sigmas(STEPS)[:-1]:
        run.denoised(x, sigma, lambda: toy(x, sigma), toy)
    return run


def test_above_the_limit_the_trials_end_with_the_warm_up_and_the_report_says_why():
    run = sampled(Times(trial=0.38, call=1.0))
    report = run.report()
    assert report["trials"] == 3 and report["warnings"] == [
        "a trial takes 38 % of a call, because 57 % of the model's weights do not fit the GPU: "
        "reuse is decided without trials"
    ]
    assert report["trial_share"] == pytest.approx(0.38) and report["uses_trials"] is False
    with_trials = sampled(Times(trial=0.01, call=1.0)).report()
    assert report["decisions"] == with_trials["decisions"] and report["reused"] > 10
    step = math.prod(SHAPE) ** 0.5 / STEPS  # the true LFD of one step; a trial's is smaller
    assert [report["delta_max"], *report["lfd"][1:3]] == pytest.approx([step] * 3, rel=1e-4)


@pytest.mark.parametrize(
    "share, streamed, ends",
    [
        (LIMIT_STREAMED + 0.01, STREAMED, True),
        (LIMIT_STREAMED - 0.01, STREAMED, False),
        (LIMIT - 0.01, 0.0, False),
        (LIMIT - 0.01, None, False),
        (LIMIT - 0.01, 0.005, False),  # the host's counts do not differ by less
        (LIMIT + 0.01, 0.0, True),
        (LIMIT + 0.01, None, True),
    ],
)
def test_the_limit_depends_on_whether_weights_are_streamed(share, streamed, ends):
    report = sampled(Times(trial=share, call=1.0), streamed).report()
    assert report["uses_trials"] != ends and bool(report["warnings"]) == ends
    if ends and streamed != STREAMED:
        (warning,) = report["warnings"]
        assert (
            warning == f"a trial takes {100 * share:.0f} % of a call on this machine: reuse is decided without trials"
        )


@pytest.mark.parametrize("streamed", (None, 0.0, STREAMED))
def test_short_calls_keep_their_trials(streamed):
    call = SHORTEST_CALL - 0.01
    report = sampled(Times(trial=call, call=call), streamed).report()
    assert report["uses_trials"] and report["warnings"] == []


class CpuTimes(Times):
    finished = Stopwatch.finished


def test_on_a_cpu_trials_go_on_however_long_they_take():
    report = sampled(CpuTimes(trial=1.0, call=1.0)).report()
    assert report["uses_trials"] and report["warnings"] == [] and report["trial_share"] == 1.0


def test_the_judgement_waits_until_the_gpu_has_finished_what_it_needs():
    assert sampled(Times(0.38, 1.0, lag=STEPS)).report()["uses_trials"]  # never finished
    late = sampled(Times(0.38, 1.0, lag=3)).report()
    assert not late["uses_trials"] and late["trials"] > 3


def test_it_is_judged_once():
    times = Times(trial=0.01, call=1.0)
    run = sampled(times)
    times.taken["trial"] = 1.0
    assert run.lfcache.trial_cost.objection() is None


@pytest.mark.parametrize("settings", (dict(alpha=0.0), dict(try_every_call=True)))
def test_settings_that_ask_for_trials_keep_them_and_the_report_says_what_they_take(settings):
    report = sampled(Times(trial=0.38, call=1.0), config=plain(**{"alpha": 2.5, **settings})).report()
    assert report["uses_trials"] and report["trials"] == STEPS
    (warning,) = [text for text in report["warnings"] if "a trial takes" in text]
    assert warning.startswith("a trial takes 38 % of a call, because") and warning.endswith(
        ": trials are made all the same, because the settings ask for them"
    )


def test_a_run_that_goes_on_with_an_earlier_scale_keeps_its_trials():
    report = sampled(Times(trial=0.38, call=1.0), delta_max=0.2).report()
    assert report["uses_trials"] and report["warnings"] == []


def test_a_short_warm_up_is_judged_as_soon_as_a_second_call_was_computed():
    report = sampled(Times(trial=0.38, call=1.0), config=plain(alpha=2.5, warmup=2)).report()
    assert not report["uses_trials"] and 3 <= report["trials"] <= 5


@pytest.mark.parametrize(
    "trials, calls, expected",
    [
        ([], [], None),
        ([9.0], [9.0], None),
        ([9.0, 1.0], [9.0], None),
        ([9.0], [9.0, 2.0], None),
        ([9.0, 1.0], [9.0, 2.0], 0.5),  # the first of each is left out
        ([0.1, 8.0, 1.0], [0.1, 2.0, 7.0], 0.5),  # the fastest counts
        ([9.0, 1.0], [9.0, 0.0], None),
    ],
)
def test_share(trials, calls, expected):
    assert share_of(trials, calls) == expected


class Event:
    """A CUDA event: `now` is the GPU's clock in milliseconds; it finishes events up to `done`."""

    now = done = 0

    def __init__(self, enable_timing):
        assert enable_timing
        self.at = None

    def record(self):
        Event.now += 1000
        self.at = Event.now

    def query(self):
        return self.at <= Event.done

    def synchronize(self):
        Event.done = max(Event.done, self.at)

    def elapsed_time(self, end):
        assert self.query() and end.query(), "the event has not finished"
        return end.at - self.at


def test_a_gpus_stopwatch_tells_what_has_finished_without_waiting(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "now", 0)
    monkeypatch.setattr(Event, "done", 0)
    stopwatch = Stopwatch("cuda")
    for _ in range(2):
        start = stopwatch.mark()
        stopwatch.mark()
        stopwatch.add("trial", start)
    assert stopwatch.finished("trial") == stopwatch.finished("none") == []
    for done, expected in ((3000, [2.0]), (5000, [2.0]), (6000, [2.0, 2.0])):
        Event.done = done
        assert stopwatch.finished("trial") == expected
    Event.done = 0
    assert stopwatch.each("trial") == [2.0, 2.0] and stopwatch.seconds("trial") == 4.0  # these wait
    assert stopwatch.each("none") == [] and stopwatch.seconds("none") == 0


def test_a_cost_without_times_has_no_objection_and_no_share():
    cost = TrialCost(Journal())
    assert cost.objection() is None and cost.share is None
