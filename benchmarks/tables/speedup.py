"""The speed-up that a run says of itself against the measured one: `python3 run.py bench speedup`.

Each case is sampled in the real host between two uncached runs of the same seed, `--rounds` times. The measured ratio
is the mean time of these two over that of the cached run; the estimate is the report's `speedup`, which knows the
cached run only. The table has the medians of the rounds. Run it on a machine that does nothing else.
"""

import statistics
import time

from benchmarks.options import ModelParser
from benchmarks.study import head, host_version, write_table
from precisecache_core.lfcache.config import PRESETS
from testkit.tiny_host import open_bench
from tools.machine import describe_machine

NEAR = 0.05  # how far an estimate may be from the measured ratio, as a share of it

# (sampler, steps, preset or None for no LFCache, with BlockCache, further settings)
CASES = [
    *(("euler", steps, preset, False, {}) for steps in (20, 30) for preset in PRESETS if preset != "flash"),
    *((sampler, 30, "base", False, {}) for sampler in ("uni_pc", "dpmpp_2m", "heun", "lcm", "euler_ancestral")),
    ("euler", 30, "turbo", True, {}),
    ("uni_pc", 20, "turbo", True, {}),
    ("euler", 30, None, True, {}),
    ("dpmpp_2m", 20, None, True, {}),
    ("euler", 30, "base", False, {"factor_t": 1, "factor_hw": 1}),
]


def attached(bench, preset, has_blocks, settings):
    """The tiny model with the caches of a case."""
    model = bench.model
    if preset is not None:
        model = bench.attachment.attach(model, lfcache=bench.config.from_preset(preset, 0.7, 0.4, **settings))
    return bench.blockcache(model) if has_blocks else model


def measured_often(bench, case, noise, rounds):
    """The result of `measure` with the medians of the ratios over the rounds."""
    results = [measure(bench, case, noise) for _ in range(rounds)]
    ratios = [result for result in results if result["estimated"] is not None]
    medians = {name: statistics.median(r[name] for r in ratios) for name in ("measured", "estimated")} if ratios else {}
    return results[0] | medians


def measure(bench, case, noise, clock=time.perf_counter):
    """{"measured": ratio of times, "estimated": the report's, or None}."""
    sampler, steps, preset, has_blocks, settings = case
    model = attached(bench, preset, has_blocks, settings)

    def seconds(patcher):
        start = clock()
        bench.sample(patcher, sampler, steps=steps, noise=noise)
        return clock() - start

    first, cached, last = seconds(bench.model), seconds(model), seconds(bench.model)
    run = bench.report(model)
    return {
        "measured": statistics.mean((first, last)) / cached,
        "estimated": run["speedup"],
        "computed": run["computed"],
        "calls": run["calls"],
    }


def label(case):
    sampler, steps, preset, has_blocks, settings = case
    name = " and ".join(filter(None, [preset, "BlockCache" if has_blocks else None]))
    return f"{sampler} {steps}, {name}{', no trials' if settings else ''}"


def lines_of(found):
    """The table: one line for each (case, result), and how many estimates are near."""
    lines = [f"{'':36} {'computed':>9}  {'measured':>8}  {'estimate':>8}  {'off by':>7}"]
    errors = []
    for case, result in found:
        line = f"{label(case):36} {result['computed']:4} of {result['calls']:<3} {result['measured']:7.2f}x"
        if result["estimated"] is None:
            lines.append(f"{line}  {'none':>8}")
            continue
        errors.append(result["estimated"] / result["measured"] - 1)
        lines.append(f"{line}  {result['estimated']:7.2f}x  {errors[-1]:+7.1%}")
    near = sum(abs(error) <= NEAR for error in errors)
    worst = max(map(abs, errors), default=0.0)
    return [*lines, "", f"{near} of {len(errors)} estimates within {NEAR:.0%}; the worst is off by {worst:.1%}"]


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    bench = open_bench(model=args.model)
    noise = bench.noise(tuple(args.shape))
    bench.sample(bench.model, steps=8, noise=noise)  # the first run loads and warms up
    found = []
    for case in CASES:
        found.append((case, measured_often(bench, case, noise, args.rounds)))
        print(lines_of(found)[-3], flush=True)
    top = head("speedup", host_version(), describe_machine())
    shape = " x ".join(map(str, args.shape))
    write_table(
        args.out / "speedup.txt",
        [*top, f"model {args.model}, latents {shape}, {args.rounds} rounds", "", *lines_of(found)],
    )


if __name__ == "__main__":
    main()
