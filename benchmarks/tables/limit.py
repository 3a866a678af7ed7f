"""The best schedule of computed calls that a search finds: `python3 run.py bench limit --steps 30`.

For each clip and number of computed calls it looks for the calls to compute that bring the video closest to the
uncached one, with LFCache's default reuse and its correction, in the real host. It starts from the best of several
spreads and moves one computed call at a time. No method could choose like this, because it needs the uncached video;
the result shows how much is left to gain by choosing better. `frontier` shows the rows `limit` beside its own.
Every schedule that was tried is kept under --out, so that a stopped command resumes and a longer one
(--evaluations) goes on.
"""

import json
import random
import sys

import torch

from benchmarks.methods import LIMIT_SHARES, Schedule, limit_name
from benchmarks.options import ModelParser
from benchmarks.peers.uniform import attach_uniform, uniform_pattern
from benchmarks.study import psnr_and_ssim
from precisecache_core.lfcache.config import REUSES, LFCacheConfig
from testkit.tiny_host import open_bench

POWERS = (1.0, 1.3, 1.6, 2.0)  # of the spreads that the search starts from; above 1, gaps grow
MOVES = (-1, 1, -2, 2, -4, 4)


def spread(calls, computed, power, warmup=2):
    """Numbers of `computed` calls: the first `warmup`, then gaps that grow as a power."""
    rest = computed - warmup
    found = set(range(warmup))
    for i in range(1, rest + 1):
        at = warmup - 1 + round((calls - warmup) * (i / (rest + 0.5)) ** power)
        while at in found:
            at += 1
        found.add(min(at, calls - 1))
    return tuple(sorted(found))


class Search:
    """Looks for the best schedule of one clip by moving one computed call at a time.

    score(schedule): its PSNR in dB; a schedule is a sorted tuple of call numbers. known: {schedule: PSNR} of
    earlier searches, extended by this one.
    """

    def __init__(self, score, calls, computed, known=None):
        self.score, self.calls, self.computed = score, calls, computed
        self.known = {} if known is None else known
        self.evaluations = 0

    def value(self, schedule):
        if schedule not in self.known:
            self.known[schedule] = self.score(schedule)
            self.evaluations += 1
        return self.known[schedule]

    def neighbours(self, schedule):
        """Schedules that differ in one call; the first call is always computed."""
        found = []
        for i, call in enumerate(schedule[1:], 1):
            for move in MOVES:
                other = call + move
                if 0 < other < self.calls and other not in schedule:
                    found.append(tuple(sorted((*schedule[:i], other, *schedule[i + 1 :]))))
        return found

    def run(self, starts, evaluations, seed=0):
        """The best schedule after that many new evaluations, or when no neighbour of it is better."""
        best = max((s for s in {*starts, *self.known} if len(s) == self.computed), key=self.value)
        order = random.Random(seed)
        while True:
            around = self.neighbours(best)
            order.shuffle(around)
            for schedule in around:
                if schedule not in self.known and self.evaluations >= evaluations:
                    continue
                if self.value(schedule) > self.value(best):
                    best = schedule
                    break
            else:
                return best


def starts(calls, computed, known=()):
    """The schedules that a search starts from."""
    return {spread(calls, computed, power, warmup) for power in POWERS for warmup in (2, 3)} | set(known)


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the first clip")
    parser.add_argument("--sampler", default="euler", help="one that calls the model once a step")
    parser.add_argument("--shift", type=float, default=5.0)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    parser.add_argument("--shares", type=float, nargs="+", default=LIMIT_SHARES)
    parser.add_argument("--reuse", choices=REUSES, default=LFCacheConfig().reuse)
    parser.add_argument("--evaluations", type=int, default=60, help="runs for each clip and share")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    schedule = Schedule(args.sampler, "simple", args.steps, args.shift, tuple(args.shape))
    bench = open_bench(model=args.model)
    torch.set_num_threads(args.threads)
    base = bench.shifted(args.shift)
    path = args.out / f"frontier_{schedule.name}.limit.jsonl"
    tried_path = args.out / f"limit_{schedule.name}.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    tried = [json.loads(line) for line in tried_path.read_text().splitlines()] if tried_path.exists() else []

    def sample(model, seed):
        bench.ask_for(seed)
        noise = bench.noise(schedule.shape, seed)
        latent = bench.sample(model, schedule.sampler, schedule.scheduler, schedule.steps, noise=noise, seed=seed)
        return bench.vae.decode(latent)

    for seed in range(args.first, args.first + args.clips):
        reference = sample(base, seed)
        for share in args.shares:
            computed = sum(uniform_pattern(schedule.steps, share))
            known = {tuple(t["schedule"]): t["psnr"] for t in tried if (t["seed"], t["reuse"]) == (seed, args.reuse)}

            def score(calls):
                pattern = [i in calls for i in range(schedule.steps)]
                psnr, ssim = psnr_and_ssim(reference, sample(attach_uniform(base, pattern, args.reuse), seed))
                entry = {"seed": seed, "reuse": args.reuse, "schedule": calls, "psnr": psnr, "ssim": ssim}
                tried.append(entry)
                with tried_path.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                return psnr

            search = Search(score, schedule.steps, computed, known)
            best = search.run(starts(schedule.steps, computed), args.evaluations)
            entry = next(t for t in tried if tuple(t["schedule"]) == best and t["seed"] == seed)
            record = {
                "seed": seed,
                "name": limit_name(args.reuse, share),
                "cost": computed / schedule.steps,
                "trial_cost": 0.0,
                "computed": computed,
                "psnr": entry["psnr"],
                "ssim": entry["ssim"],
                "lpips": None,
                "decisions": "".join("C" if i in best else "R" for i in range(schedule.steps)),
            }
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(
                f"clip {seed}, {computed} calls: {entry['psnr']:.2f} dB {best}, {search.evaluations} runs", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
