"""How well trials of each size estimate the LFD: `python3 run.py bench trial_resolution`.

The paper's Figure 5. One run a clip with every call computed; beside each call the trials of
all factors and kinds, so that all are measured on the same calls. Shown over the calls, each
over its largest value in the warm-up (what the threshold is relative to); as Spearman's
rank correlation with the LFD of the predictions themselves (what a run reports as
`trial_agreement`); and by what factor those relative values are off.
"""

import math
from dataclasses import asdict

from benchmarks.study import COLORS, Recording, Records, Study, mean, parser_of, write_plot, write_table
from precisecache_core import LFCacheRun, low_frequency_difference
from precisecache_core.lfcache.shrink import fit_factors
from precisecache_core.record.rank import rank_correlation

FACTORS = ((2, 4), (1, 4), (2, 2), (1, 2))
TRIALS = (("snr_matched", "trial"), ("plain", "trial"), ("plain", "cached"))


def configs(bench):
    """{name: LFCacheConfig that computes every call} of every trial that is measured."""
    return {(factor_t, factor_hw, trial, reference): bench.config(
        alpha=0.0, trial=trial, reference=reference, factor_t=factor_t, factor_hw=factor_hw)
        for factor_t, factor_hw in FACTORS for trial, reference in TRIALS}


def attach_trials(patcher, runs):
    """A clone of the patcher that computes every call, and beside it makes the trials of these LFCacheRuns."""
    from comfy.patcher_extension import WrappersMP
    from PreciseCache.nodes.host.trials import trial_options

    def predict_noise(executor, x, timestep, model_options=None, seed=None):
        answer = executor(x, timestep, model_options, seed)

        def trial(x_small, sigma_small):
            return executor(x_small, sigma_small.expand_as(timestep), trial_options(model_options), seed)

        for run in runs:
            run.denoised(x, timestep.reshape(-1)[0], lambda: answer, trial)
        return answer

    patcher = patcher.clone()
    patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "trials", predict_noise)
    return patcher


def lfds(study, seed, given):
    """[{"lfd": by trials, "true": of the predictions}] for each config, from one run of a clip.

    Both begin with the second call; where a config's trial could not be made, they are empty.
    """
    from PreciseCache.nodes.host.parametrization import parametrization_of

    recording = Recording(study.base)
    model = parametrization_of(study.base.model, study.base.get_model_object("model_sampling"))
    runs = [LFCacheRun(config, model) for config in given]
    study.sample(attach_trials(recording.attach(study.base), runs), seed)
    return [{"lfd": run.journal.lfds[1:] if run.journal.trials else [], "factors": factors_of(run, study.shape),
             "true": true_lfds(recording.predictions, run.config.cutoff) if run.journal.trials else []}
            for run in runs]


def factors_of(run, shape):
    """How a run's trials shrink latents of this shape."""
    return fit_factors(shape, run.config.factor_t, run.config.factor_hw, run.model.patch)


def true_lfds(predictions, cutoff):
    """The LFD of each prediction against the one before."""
    return [low_frequency_difference(after, before, cutoff).item()
            for before, after in zip(predictions, predictions[1:])]


def measured(study, records, clips):
    """The records of every config and clip, measured where they are missing."""
    shown = []
    for seed in range(clips):
        wanted = configs(study.bench)
        found = {name: records.find(seed=seed, config=asdict(c)) for name, c in wanted.items()}
        missing = {name: c for name, c in wanted.items() if found[name] is None}
        if missing:
            for (name, config), values in zip(missing.items(), lfds(study, seed, missing.values())):
                found[name] = records.add({"seed": seed, "name": list(name), "config": asdict(config), **values})
        shown += found.values()
    return shown


def agreement(record):
    return rank_correlation(record["lfd"], record["true"])


def misjudgement(record):
    """The factor by which a trial's relative LFD is off, up or down: geometric mean over the calls."""
    sides = (relative(record[key], record["config"]["warmup"]) for key in ("lfd", "true"))
    return math.exp(mean([abs(math.log(lfd / true)) for lfd, true in zip(*sides) if lfd > 0 and true > 0]) or 0.0)


def table(records, judge=agreement, worst=min):
    """Mean and, in brackets, worst judgement of the trials over the clips."""
    lines = [f"{'factors':9} " + "  ".join(f"{trial} / {reference}" for trial, reference in TRIALS)]
    for factor_t, factor_hw in FACTORS:
        cells = []
        for trial, reference in TRIALS:
            found = [judge(r) for r in records
                     if r["name"] == [factor_t, factor_hw, trial, reference] and r["lfd"]]
            found = [c for c in found if c is not None]
            cell = f"{mean(found):.2f} ({worst(found):.2f})" if found else "-"
            cells.append(f"{cell:>{len(trial) + len(reference) + 3}}")
        lines.append(f"{factor_t}, {factor_hw}, {factor_hw}   " + "  ".join(cells))
    return lines


def relative(values, warmup):
    """A curve over its largest value in the warm-up, whose first call has no LFD."""
    largest = max(values[:warmup - 1])
    return [v / largest for v in values]


def mean_curve(records, key):
    return [mean(values) for values in zip(*(relative(r[key], r["config"]["warmup"]) for r in records))]


def paint(panels, records):
    """A panel a kind of trial: the true LFD and that of every resolution."""
    for panel, (trial, reference) in zip(panels[:, 0], TRIALS):
        of = {factors: [r for r in records if r["name"] == [*factors, trial, reference] and r["lfd"]]
              for factors in FACTORS}
        for (factors, some), color, style in zip(of.items(), COLORS, ("-", "--", "-.", ":")):
            if some:
                calls = range(2, len(some[0]["lfd"]) + 2)
                panel.plot(calls, mean_curve(some, "lfd"), color=color, linestyle=style, linewidth=1.6,
                           label=f"trial {factors[0]}, {factors[1]}, {factors[1]}")
        some = next((s for s in of.values() if s), None)
        if some:
            panel.plot(range(2, len(some[0]["true"]) + 2), mean_curve(some, "true"), color="black", linewidth=2.4,
                       label="full resolution")
        panel.set_title(f"{trial} trial, reference {reference}")
        panel.set_yscale("log")
        panel.set_ylabel("LFD over the\nwarm-up's largest")
        panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=9, ncols=2)
    panels[-1, 0].set_xlabel("model call")


def main():
    args = parser_of(__doc__).parse_args()
    study = Study.of(args)
    records = measured(study, Records(args.out / "trial_resolution.jsonl", study, args.fresh), args.clips)
    write_table(args.out / "trial_resolution.txt", [
        *study.lines("trial_resolution", args.clips), "rank correlation with the LFD at full resolution",
        *table(records), "", "factor by which the LFD over the warm-up's largest is off",
        *table(records, misjudgement, max)])
    write_plot(args.out / "trial_resolution.png", lambda panels: paint(panels, records), rows=len(TRIALS), height=3)


if __name__ == "__main__":
    main()
