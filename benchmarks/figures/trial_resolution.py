"""How well trials estimate the LFD at each resolution: `python3 run.py bench trial_resolution`.

The paper's Figure 5. For each clip, one run computes every call and makes the trials of all factors
and kinds beside it, so that all are measured on the same calls. The plot shows the LFD over the
calls, over its largest value in the warm-up (which the threshold is relative to). The tables give
Spearman's rank correlation with the LFD of the predictions themselves (which a run reports as
`trial_agreement`), and the factor by which the relative values are off.
"""

import math
from dataclasses import asdict

from benchmarks.study import COLORS, Recording, Records, Study, mean, parser_of, write_plot, write_table
from precisecache_core import LFCacheRun, low_frequency_difference
from precisecache_core.lfcache.latent.shrink import fit_factors
from precisecache_core.record.rank import rank_correlation

FACTORS = ((2, 4), (1, 4), (2, 2), (1, 2))
TRIALS = (("snr_matched", "trial"), ("plain", "trial"), ("plain", "cached"))


def configs(bench):
    """{name: LFCacheConfig} of every trial that is measured; all of them compute every call."""
    return {
        (factor_t, factor_hw, trial, reference): bench.config(
            alpha=0.0, trial=trial, reference=reference, factor_t=factor_t, factor_hw=factor_hw
        )
        for factor_t, factor_hw in FACTORS
        for trial, reference in TRIALS
    }


def attach_trials(patcher, runs):
    """A clone of the patcher that computes every call and also makes the trials of these LFCacheRuns."""
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
    """[{"lfd": by trials, "true": of the predictions, "factors"}], one per config, from one run of a clip.

    Both lists begin with the second call; they are empty if a config's trial could not be made.
    """
    from PreciseCache.nodes.host.parametrization import parametrization_of

    recording = Recording(study.base)
    model = parametrization_of(study.base.model, study.base.get_model_object("model_sampling"))
    runs = [LFCacheRun(config, model) for config in given]
    study.sample(attach_trials(recording.attach(study.base), runs), seed)
    return [
        {
            "lfd": run.journal.lfds[1:] if run.journal.trials else [],
            "factors": factors_of(run, study.shape),
            "true": true_lfds(recording.predictions, run.config.cutoff) if run.journal.trials else [],
        }
        for run in runs
    ]


def factors_of(run, shape):
    """The factors by which a run's trials shrink latents of this shape."""
    return fit_factors(shape, run.config.factor_t, run.config.factor_hw, run.model.patch)


def true_lfds(predictions, cutoff):
    """The LFD of each prediction against the one before."""
    return [
        low_frequency_difference(after, before, cutoff).item() for before, after in zip(predictions, predictions[1:])
    ]


def measured(study, records, clips):
    """The records of every config and clip; missing ones are measured."""
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
    """The factor by which a trial's relative LFD is too high or too low: geometric mean over the calls."""
    sides = (relative(record[key], record["config"]["warmup"]) for key in ("lfd", "true"))
    return math.exp(mean([abs(math.log(lfd / true)) for lfd, true in zip(*sides) if lfd > 0 and true > 0]) or 0.0)


def table(records, judge=agreement, worst=min):
    """What `judge` gives for the trials: mean and, in brackets, worst over the clips."""
    lines = [f"{'factors':9} " + "  ".join(f"{trial} / {reference}" for trial, reference in TRIALS)]
    for factor_t, factor_hw in FACTORS:
        cells = []
        for trial, reference in TRIALS:
            found = [judge(r) for r in records if r["name"] == [factor_t, factor_hw, trial, reference] and r["lfd"]]
            found = [c for c in found if c is not None]
            cell = f"{mean(found):.2f} ({worst(found):.2f})" if found else "-"
            cells.append(f"{cell:>{len(trial) + len(reference) + 3}}")
        lines.append(f"{factor_t}, {factor_hw}, {factor_hw}   " + "  ".join(cells))
    return lines


def relative(values, warmup):
    """A curve over its largest value in the warm-up, whose first call has no LFD."""
    largest = max(values[: warmup - 1])
    return [v / largest for v in values]


def mean_curve(records, key):
    return [mean(values) for values in zip(*(relative(r[key], r["config"]["warmup"]) for r in records))]


def paint(panels, records):
    """One panel per kind of trial: the true LFD and the trials' at every resolution."""
    for panel, (trial, reference) in zip(panels[:, 0], TRIALS):
        of = {
            factors: [r for r in records if r["name"] == [*factors, trial, reference] and r["lfd"]]
            for factors in FACTORS
        }
        for (factors, some), color, style in zip(of.items(), COLORS, ("-", "--", "-.", ":")):
            if some:
                calls = range(2, len(some[0]["lfd"]) + 2)
                panel.plot(
                    calls,
                    mean_curve(some, "lfd"),
                    color=color,
                    linestyle=style,
                    linewidth=1.6,
                    label=f"trial {factors[0]}, {factors[1]}, {factors[1]}",
                )
        some = next((s for s in of.values() if s), None)
        if some:
            panel.plot(
                range(2, len(some[0]["true"]) + 2),
                mean_curve(some, "true"),
                color="black",
                linewidth=2.4,
                label="full resolution",
            )
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
    write_table(
        args.out / "trial_resolution.txt",
        [
            *study.lines("trial_resolution", args.clips),
            "rank correlation with the LFD at full resolution",
            *table(records),
            "",
            "factor by which the LFD over the warm-up's largest is off",
            *table(records, misjudgement, max),
        ],
    )
    write_plot(args.out / "trial_resolution.png", lambda panels: paint(panels, records), rows=len(TRIALS), height=3)


if __name__ == "__main__":
    main()
