"""What LFCache costs in addition to its trials: `python3 run.py bench overhead`.

A tiny model is sampled in the real host with a planned share of the steps. The run's own stopwatch times every call,
the model and the trial. The remaining time is ours: pooling, the plan, the decision, the conversion, the stand-ins, the
correction and the cache. Its share is that of an average call over a computed one. Cached latents are counted too.

Then the events to the page and the report are timed, on toy tensors with a server that does nothing,
at the pace of a run with both caches (turbo and BlockCache's defaults). Their time is given as a share
of that run.
"""

import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import torch

from benchmarks.options import ModelParser
from benchmarks.study import head, write_table
from precisecache_core import FLOW_MODEL, BlockCacheConfig, CachedRun, LFCacheConfig, flow_sigmas
from precisecache_core.lfcache.config import PRESET_STEPS
from testkit.tiny_host import open_bench
from tools.machine import describe_machine


@contextmanager
def watched():
    """A list of the stopwatches of all runs that end while inside."""
    from PreciseCache.precisecache_core.cached_run import CachedRun as Run

    stopwatches, report = [], Run.report

    def keep(self):
        stopwatches.append(self.journal.stopwatch)
        return report(self)

    with mock.patch.object(Run, "report", keep):
        yield stopwatches


def events_and_records(steps, interval):
    """(seconds that all events and the report of one run take together, how many events were sent).

    interval: seconds from call to call; no more than ten events a second are sent.
    """
    from PreciseCache.nodes.host import events, reports

    sent, seconds = [], []
    server = SimpleNamespace(
        client_id=None,
        send_sync=lambda *event: sent.append(event),
        loop=SimpleNamespace(
            call_later=None, call_soon_threadsafe=lambda later, wait, send, *event: sent.append(event)
        ),
    )

    def timed(work, *args):
        begin = time.perf_counter()
        result = work(*args)
        seconds.append(time.perf_counter() - begin)
        return result

    x = torch.ones(1, 1, 2, 8, 8)
    run = CachedRun(
        LFCacheConfig.from_preset("turbo"), BlockCacheConfig(), FLOW_MODEL, steps, name="WanModel", latent_shape=x.shape
    )
    with mock.patch.dict(sys.modules, {"server": SimpleNamespace(PromptServer=SimpleNamespace(instance=server))}):
        feed = timed(events.CallFeed, run, timed(events.Page.of, ["1", "2"]))
        for sigma in flow_sigmas(steps)[:-1]:
            run.denoised(x, sigma, lambda: x * sigma, lambda small, level: small * level)
            time.sleep(interval)
            timed(feed.tell)
        entry = timed(run.report)
        timed(reports.record, "overhead", entry)
        timed(feed.tell, True)
    return sum(seconds), len(sent)


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.4, help="of the steps, that are computed")
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 8, 64, 64])
    parser.add_argument("--reuse", default=LFCacheConfig().reuse)
    parser.add_argument("--told-steps", type=int, default=50, help="of the run whose events and records are timed")
    parser.add_argument("--told-shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    args = parser.parse_args()
    bench = open_bench(model=args.model)
    model = bench.lfcache(share=args.share, reuse=args.reuse)
    with watched() as stopwatches:
        bench.sample(model, steps=args.steps, noise=bench.noise(tuple(args.shape)))
    run = bench.report(model)
    call, compute, trial = (stopwatches[-1].seconds(name) for name in ("call", "compute", "trial"))
    ours = (call - compute - trial) / run["calls"]
    computed = compute / run["computed"]
    both = bench.blockcache(bench.lfcache(**dict(zip(("extra_steps", "share"), PRESET_STEPS["turbo"]))))
    bench.sample(both, steps=args.told_steps, noise=bench.noise(tuple(args.told_shape)))
    told = bench.report(both)
    spent, events = events_and_records(args.told_steps, told["seconds"]["sampling"] / args.told_steps)
    lines = [
        *head("overhead", describe_machine()),
        f"model {args.model}, latents {tuple(args.shape)}, euler, {args.steps} steps, "
        f"{run['computed']} of them computed, reuse {args.reuse}",
        "",
        f"model     {computed * 1000:10.2f} ms a computed call",
        f"trial     {trial / run['trials'] * 1000:10.2f} ms a trial  {trial / run['trials'] / computed:.3%} of that",
        f"the rest  {ours * 1000:10.2f} ms a call  {ours / computed:.3%} of that",
        f"cached    {run['cache_bytes']['lfcache'] / bench.noise(tuple(args.shape)).nbytes:.1f} latents",
        "",
        f"events and records, latents {tuple(args.told_shape)}, {args.told_steps} steps, "
        f"turbo and BlockCache, {told['reused']} reused",
        f"          {spent * 1000:10.2f} ms a run   {spent / told['seconds']['sampling']:.3%} of it, {events} events",
    ]
    write_table(args.out / "overhead.txt", lines)


if __name__ == "__main__":
    main()
