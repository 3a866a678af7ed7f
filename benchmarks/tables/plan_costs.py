"""Where the constants of LFCache's plans come from: `python3 run.py bench plan_costs`.

For each schedule and clip, the derivatives of an uncached run and of a rehearsal: the squared change between every
two calls. From these it prints

- profiles fitted to one model, to the other and to both (see `Profile` in `precisecache_core.lfcache.plan.costs`),
  first for the full latent, then for the small one;
- how much more the plans made from profiles and rehearsals cost than the best plans, in dB, by how much the rehearsal
  counts; with the profiles in use and with those fitted to the other model only, which shows what to expect of a model
  that nobody has seen.

Costs are those of `measured_costs` with the derivatives of the uncached run. All clips of both models are shown
together, so run it with `--model` for each of them first.
"""

import json
import sys

import numpy as np
import torch

from benchmarks.methods import SCHEDULES
from benchmarks.options import ModelParser, results_of
from benchmarks.study import Recording, head, host_version, mean, write_table
from precisecache_core.lfcache.latent.trial import FLOW
from precisecache_core.lfcache.plan import costs
from precisecache_core.lfcache.plan.plan import best_calls
from testkit.models import MODELS
from testkit.tiny_host import open_bench
from tools.machine import describe_machine

SHARES = (0.4, 1 / 3, 0.27, 0.2)  # of the steps, that are planned
CONFIDENCES = (0, 0.25, 0.5, 0.75, 1)
GAPS = (2, 8)  # the shortest and the longest gap, in calls, that profiles are fitted to


def changes(derivatives):
    """The squared change between every two derivatives, (N, N), from a list of tensors."""
    rows = torch.stack([d.flatten() for d in derivatives]).double()
    gram = rows @ rows.T
    sizes = gram.diagonal()
    return (sizes[:, None] + sizes[None] - 2 * gram).clamp(min=0)


def measure(bench, schedule, seed):
    """One record: noise levels and changes of the uncached run's derivatives and of the rehearsal's."""
    from PreciseCache.nodes.host.parametrization import parametrization_of
    from PreciseCache.precisecache_core.lfcache.plan.rehearsal import Rehearsal

    base = bench.shifted(schedule.shift)
    bench.ask_for(seed)
    noise = bench.noise(schedule.shape, seed)
    recording, rehearsed = Recording(base), []

    def rehearse(executor, x, timestep, model_options=None, seed=None):
        """Before the first call, sample the small latent with the same guider."""
        if not rehearsed:
            model = parametrization_of(base.model, base.get_model_object("model_sampling")).in_derivatives()
            rehearsal = Rehearsal(model, [*sigmas, 0.0], factors, is_matched=True)
            trial = rehearsal.begin(x)
            while trial is not None:
                trial = rehearsal.answer(executor(trial.x, trial.sigma.expand(len(x)), model_options, seed))
            rehearsed.extend(rehearsal.derivatives)
        return executor(x, timestep, model_options, seed)

    from comfy.patcher_extension import WrappersMP
    from comfy.samplers import calculate_sigmas

    config = bench.config()
    factors = config.factor_t, config.factor_hw, config.factor_hw
    sampling = base.get_model_object("model_sampling")
    sigmas = calculate_sigmas(sampling, schedule.scheduler, schedule.steps).tolist()[:-1]
    model = recording.attach(base)
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "rehearse", rehearse)
    bench.sample(model, schedule.sampler, schedule.scheduler, schedule.steps, noise=noise, seed=seed)
    full, small = (
        [[float(f"{v:.5g}") for v in row] for row in changes(derivatives).tolist()]
        for derivatives in (recording.predictions[: len(sigmas)], rehearsed)
    )
    return {"schedule": schedule.name, "seed": seed, "sigmas": [*sigmas, 0.0], "full": full, "small": small}


class Run:
    """The costs of one record: of its full latent, and of its rehearsal."""

    def __init__(self, record):
        self.sigmas = record["sigmas"]
        grams = [-np.array(record[size]) / 2 for size in SIZES]
        self.full, self.small = (costs.measured_costs(gram, self.sigmas, FLOW) for gram in grams)
        self.rehearsed = grams[1]

    def __len__(self):
        return len(self.sigmas) - 1

    def profiled(self, profile):
        return costs.expected_costs(self.sigmas, FLOW, profile)

    def excess(self, profiles, confidence):
        """How much more the plans of a rehearsal cost than the best ones, in dB, mean over SHARES."""
        planned, found = costs.rehearsed_costs(self.rehearsed, self.sigmas, FLOW, profiles, confidence), []
        for share in SHARES:
            best, ours = (self.total(best_calls(c, -1, int(share * len(self)), {0, 1})) for c in (self.full, planned))
            found.append(10 * np.log10(ours / best))
        return mean(found)

    def total(self, calls):
        return sum(self.full[p, j] for p, j in zip(calls, [*calls[1:], len(self)]) if j > p + 1)


SIZES = ("full", "small")


def fit(runs, size):
    """The Profile whose costs are nearest to the measured ones up to a factor: least variance of their ratio's log."""
    from scipy.optimize import minimize

    def loss(values):
        power, late, growth, floor = values
        if not (0.1 < power < 3 and 0 <= late < 3 and 1 < growth <= 2 and 1e-3 < floor < 0.2):
            return 1e3
        profile, found = costs.Profile(power, late, growth, floor), []
        for run in runs:
            p, j = np.indices((len(run), len(run) + 1))
            chosen = (j - p >= GAPS[0]) & (j - p <= GAPS[1])
            ratio = np.log(getattr(run, size)[chosen] + 1e-12) - np.log(run.profiled(profile)[chosen] + 1e-12)
            found.append(ratio.var())
        return mean(found)

    start = costs.FULL if size == "full" else costs.SMALL
    result = minimize(loss, [start.power, start.late, start.growth, start.floor], method="Nelder-Mead")
    return costs.Profile(*result.x), result.fun**0.5


def table(records):
    """records: {model: [record]}."""
    runs = {model: [Run(record) for record in some] for model, some in records.items()}
    lines = [f"{'profile':8} {'fitted to':10} {'power':>6} {'late':>6} {'growth':>6} {'floor':>6}  spread of log cost"]
    fitted = {}
    for size in SIZES:
        for models in (*([m] for m in runs), [*runs]):
            profile, spread = fit([run for m in models for run in runs[m]], size)
            fitted[size, tuple(models)] = profile
            lines.append(line(size, "both" if len(models) > 1 else models[0], profile, f"{spread:10.2f}"))
        lines.append(line(size, "in use", costs.FULL if size == "full" else costs.SMALL, ""))
    lines += ["", "what plans cost above the best ones, dB, by how much the rehearsal counts"]
    lines.append(f"{'model':10} {'profiles of':12}" + "".join(f"{c:>7g}" for c in CONFIDENCES))
    for model, some in runs.items():
        others = tuple(m for m in runs if m != model)
        pairs = {"in use": (costs.FULL, costs.SMALL)}
        if others:
            pairs[" and ".join(others)] = tuple(fitted[size, others] for size in SIZES)
        for name, pair in pairs.items():
            cells = [mean([run.excess(pair, c) for run in some]) for c in CONFIDENCES]
            lines.append(f"{model:10} {name:12}" + "".join(f"{cell:7.2f}" for cell in cells))
    return [*lines, "", f"in use: {costs.CONFIDENCE:g}"]


def line(size, name, profile, spread):
    values = " ".join(f"{v:6.3f}" for v in (profile.power, profile.late, profile.growth, profile.floor))
    return f"{size:8} {name:10} {values}  {spread}".rstrip()


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="measure nothing, show what --out holds")
    args = parser.parse_args()
    path = args.out / "plan_costs.jsonl"
    known = read(path)
    if not args.table:
        bench = open_bench(model=args.model)
        torch.set_num_threads(1)
        for schedule in SCHEDULES:
            for seed in range(args.clips):
                if not any((r["schedule"], r["seed"]) == (schedule.name, seed) for r in known):
                    known.append(measure(bench, schedule, seed))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("a") as file:
                        file.write(json.dumps(known[-1]) + "\n")
    top = args.out if args.model == next(iter(MODELS)) else args.out.parent
    records = {model: read(results_of(model, top) / path.name) for model in MODELS}
    records = {model: [r for r in some if r["seed"] < args.clips] for model, some in records.items() if some}
    title = head("plan_costs", host_version(), describe_machine())
    clips = "; ".join(f"{model} {len(some)} runs" for model, some in records.items())
    write_table(top / "plan_costs.txt", [*title, clips, "", *table(records)])


def read(path):
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
