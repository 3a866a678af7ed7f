"""What LFCache costs beside its trial: `python3 run.py bench overhead`.

On the tiny model in the real host with nothing reused: timers inside LFCache around every
call, around the model and around the trial. What is left is ours: pooling, LFD, the
decision, the conversion and the cache. Also counts cached predictions.

Then events and records, of a run with both caches (turbo and BlockCache as they are): timers
around all that tells the page and writes the report, with a server that does nothing.
"""

import argparse
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

from benchmarks.study import RESULTS, head, write_table
from testkit.tiny_host import open_bench, pack_module
from tools.machine import describe_machine


@contextmanager
def watched():
    """A list that gets the Stopwatch of every LFCacheRun that ends while inside."""
    watches = []
    run_class = pack_module("precisecache_core.lfcache.run").LFCacheRun
    report = run_class.report

    def keep(self, *given):
        watches.append(self.stopwatch)
        return report(self, *given)

    with mock.patch.object(run_class, "report", keep):
        yield watches


@contextmanager
def listening():
    """(feeds of the runs that end while inside, events sent), with a stand-in for ComfyUI's server."""
    feeds, sent = [], []
    server = SimpleNamespace(client_id=None, send_sync=lambda *event: sent.append(event), loop=SimpleNamespace(
        call_later=None, call_soon_threadsafe=lambda later, wait, send, *event: sent.append(event)))
    feed_class = pack_module("nodes.host.events").CallFeed
    tell = feed_class.tell

    def keep(self, steps, blocks, peak_bytes, is_ended=False):
        tell(self, steps, blocks, peak_bytes, is_ended)
        if is_ended:
            feeds.append(self)

    module = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    with mock.patch.object(feed_class, "tell", keep), mock.patch.dict(sys.modules, {"server": module}):
        yield feeds, sent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 8, 64, 64])
    parser.add_argument("--reuse", default="fitted")
    parser.add_argument("--told-steps", type=int, default=50, help="of the run whose events and records are timed")
    parser.add_argument("--told-shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    args = parser.parse_args()
    bench = open_bench()
    model = bench.lfcache(alpha=0.0, reuse=args.reuse)
    with watched() as watches:
        bench.sample(model, steps=args.steps, noise=bench.noise(tuple(args.shape)))
    run, watch = bench.report(model), watches[-1]
    call, compute, trial = (watch.seconds(n) for n in ("call", "compute", "trial"))
    ours = call - compute - trial
    both = bench.blockcache(bench.lfcache(alpha=0.7))
    with listening() as (feeds, sent):
        bench.sample(both, steps=args.told_steps, noise=bench.noise(tuple(args.told_shape)))
    told = bench.report(both)
    lines = [*head("overhead", describe_machine()),
             f"latents {tuple(args.shape)}, euler, {args.steps} steps, nothing reused, reuse {args.reuse}", "",
             f"model     {compute / run['calls'] * 1000:10.2f} ms a call",
             f"trial     {trial / run['calls'] * 1000:10.2f} ms a call  {trial / compute:.3%} of the model",
             f"the rest  {ours / run['calls'] * 1000:10.2f} ms a call  {ours / compute:.3%} of the model",
             f"cached    {run['cache_bytes']['lfcache'] / bench.noise(tuple(args.shape)).nbytes:.0f} predictions", "",
             f"events and records, latents {tuple(args.told_shape)}, {args.told_steps} steps, "
             f"turbo and BlockCache, {told['reused']} reused",
             f"          {feeds[-1].seconds * 1000:10.2f} ms a run   "
             f"{feeds[-1].seconds / told['seconds']['sampling']:.3%} of it, {len(sent)} events"]
    write_table(RESULTS / "overhead.txt", lines)


if __name__ == "__main__":
    main()
