"""What LFCache costs in addition to the model: the timers, and the events and the report of a run."""

import pytest

from benchmarks.tables.overhead import events_and_records, watched
from benchmarks.timers import Timers

pytestmark = pytest.mark.usefixtures("host_of_benchmarks")


def test_timers_span_every_call_every_trial_and_every_computed_model(bench):
    now = iter(range(10**6))
    model, timers = bench.lfcache(alpha=1.0), Timers(clock=lambda: next(now))
    bench.sample(timers.attach(model), steps=16)
    run = bench.report(model)
    assert run["reused"] > 0
    assert [len(timers.seconds(name)) for name in ("call", "compute", "trial")] == [16, run["computed"], run["trials"]]
    # inside a call, the clock is read twice for a trial and twice for a computed model
    assert sum(timers.seconds("call")) == 16 + 2 * (run["computed"] + run["trials"])
    assert set(timers.seconds("compute") + timers.seconds("trial")) == {1}


def test_the_stopwatch_of_a_run_is_seen(bench):
    model = bench.lfcache(alpha=0.0)
    with watched() as stopwatches:
        bench.sample(model, steps=8)
    (stopwatch,) = stopwatches
    call, compute, trial = (stopwatch.seconds(name) for name in ("call", "compute", "trial"))
    assert bench.report(model)["seconds"]["compute"] == compute and call > compute + trial > trial > 0


def test_events_and_the_report_of_a_run_are_timed(bench):
    seconds, events = events_and_records(12, interval=0)
    assert seconds > 0 and events >= 1
    assert bench.reports.runs_of("overhead")[-1]["calls"] == 12
