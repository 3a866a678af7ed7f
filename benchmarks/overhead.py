"""What LFCache costs beside its trial: `python -m benchmarks.overhead`.

On the tiny model in the real host with nothing reused: timers inside LFCache around every
call, around the model and around the trial. What is left is ours: pooling, LFD, the
decision, the conversion and the cache. Also counts read-backs and cached predictions.
"""

import argparse
from contextlib import contextmanager
from unittest import mock

from benchmarks.study import RESULTS, head, write_table
from benchmarks.tiny_host import open_bench, pack_module
from demo.machine import describe_machine


@contextmanager
def watched():
    """A list that gets the Stopwatch of every LFCacheRun that ends while inside."""
    watches = []
    run_class = pack_module("precisecache_core.run").LFCacheRun
    report = run_class.report

    def keep(self, *given):
        watches.append(self.stopwatch)
        return report(self, *given)

    with mock.patch.object(run_class, "report", keep):
        yield watches


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 8, 64, 64])
    parser.add_argument("--reuse", default="fitted")
    args = parser.parse_args()
    bench = open_bench()
    model = bench.lfcache(alpha=0.0, reuse=args.reuse)
    with watched() as watches:
        bench.sample(model, steps=args.steps, noise=bench.noise(tuple(args.shape)))
    run, watch = bench.report(model), watches[-1]
    call, compute, trial = (watch.seconds(n) for n in ("call", "compute", "trial"))
    ours = call - compute - trial
    lines = [*head("overhead", describe_machine()),
             f"latents {tuple(args.shape)}, euler, {args.steps} steps, nothing reused, reuse {args.reuse}", "",
             f"model     {compute / run['calls'] * 1000:10.2f} ms a call",
             f"trial     {trial / run['calls'] * 1000:10.2f} ms a call  {trial / compute:.3%} of the model",
             f"the rest  {ours / run['calls'] * 1000:10.2f} ms a call  {ours / compute:.3%} of the model",
             f"cached    {run['cache_bytes']['lfcache'] / bench.noise(tuple(args.shape)).nbytes:.0f} predictions"]
    write_table(RESULTS / "overhead.txt", lines)


if __name__ == "__main__":
    main()
