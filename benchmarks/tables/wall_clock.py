"""Time of whole sampling runs, over that of the uncached run: `python3 run.py bench wall_clock --rounds 3`.

Rows of the frontier on a tiny model in the real host. Each round samples one clip uncached and then
with every row, so that a ratio compares runs made one after the other. FLOPs are not counted
meanwhile. On a CPU the seconds are those of the process, on one thread, so that other processes
disturb little.
"""

import statistics
import time

import torch

from benchmarks.methods import Schedule, all_rows
from benchmarks.options import ModelParser
from benchmarks.study import head, host_version, write_table
from testkit.tiny_host import open_bench
from tools.machine import describe_machine

ROWS = (
    "lfcache plan base",
    "lfcache plan turbo",
    "flash paper turbo",
    "paper 0.5",
    "easycache 0.2",
    "uniform corrected 0.20",
)


def seconds(bench, model, schedule, noise, clock):
    """How long one sampling run took by the clock."""
    begin = clock()
    bench.sample(model, schedule.sampler, schedule.scheduler, schedule.steps, noise=noise)
    return clock() - begin


def rounds(bench, schedule, rows, count, clock=time.process_time):
    """{name: [seconds of each round]}, "uncached" first. The default clock is the process's: others compute too."""
    base = bench.shifted(schedule.shift)
    times = {"uncached": [], **{row.name: [] for row in rows}}
    bench.sample(base, steps=1, noise=bench.noise(schedule.shape))  # the first run also loads the model
    for seed in range(count):
        bench.ask_for(seed)
        noise = bench.noise(schedule.shape, seed)
        times["uncached"].append(seconds(bench, base, schedule, noise, clock))
        for row in rows:
            times[row.name].append(seconds(bench, row.attach(bench, base, schedule), schedule, noise, clock))
    return times


def table(times):
    """Medians over the rounds, and the range of the ratios."""
    lines = [f"{'row':26} {'seconds':>8} {'of uncached':>11}  least to most"]
    for name, row in times.items():
        ratios = [t / full for t, full in zip(row, times["uncached"])]
        lines.append(
            f"{name:26} {statistics.median(row):8.2f} {statistics.median(ratios):11.1%}  "
            f"{min(ratios):.1%} to {max(ratios):.1%}"
        )
    return lines


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--shift", type=float, help="by default the model's")
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    parser.add_argument("--rows", nargs="*", default=ROWS, help="names of rows")
    args = parser.parse_args()
    schedule = Schedule(args.sampler, "simple", args.steps, args.shift, tuple(args.shape))
    rows = [row for row in all_rows() if row.name in args.rows]
    bench = open_bench(model=args.model)
    torch.set_num_threads(1)
    lines = [
        *head("wall_clock", host_version(), describe_machine()),
        f"model {args.model}, latents {schedule.shape}, {schedule.sampler} {schedule.steps} steps, "
        f"shift {schedule.shift:g}, cfg 4, {args.rounds} rounds, decoding not included",
        "",
        *table(rounds(bench, schedule, rows, args.rounds)),
    ]
    write_table(args.out / f"wall_clock_{schedule.name}.txt", lines)


if __name__ == "__main__":
    main()
