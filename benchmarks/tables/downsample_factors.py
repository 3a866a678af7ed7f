"""How the size of the trial changes cost and quality: `python3 run.py bench downsample_factors`.

The paper's Table 3, with alpha 0.5 and 0.7 (base and turbo). Cost is the FLOPs counted by torch, in
total and of the trials alone, over those of the uncached run.
"""

from dataclasses import asdict

from benchmarks.study import COLORS, MARKERS, Records, Study, mean, parser_of, text, write_plot, write_table

FACTORS = ((1, 2), (2, 2), (1, 4), (2, 4), (1, 8), (4, 4))
ALPHAS = (0.5, 0.7)


def outcome(study, seed, config, reference, full):
    """One record: what LFCache with `config` costs on a clip, and how close its video is.

    reference, full: the uncached run's latent and Meter.
    """
    model = study.bench.lfcache(study.base, **asdict(config))
    latent, meter = study.run(model, seed)
    run = study.bench.report(model)
    return {
        "seed": seed,
        "config": asdict(config),
        "cost": meter.flops / full.flops,
        "trial_cost": meter.trial_flops / full.flops,
        "trials": run["trials"],
        "calls": run["calls"],
        "computed": run["computed"],
        "decisions": run["decisions"],
        "threshold": run["threshold"],
        "agreement": run["trial_agreement"],
        **study.quality(reference, latent),
    }


def outcomes(study, records, configs, clips, measure=outcome):
    """{config: [record of each clip]}; `measure` measures the records that are missing.

    A clip is sampled without a cache once, and only if one of its records is missing.
    """
    found = {config: [] for config in configs}
    for seed in range(clips):
        uncached = None
        for config in configs:
            record = records.find(seed=seed, config=asdict(config))
            if record is None:
                uncached = uncached or study.run(study.base, seed)
                record = records.add(measure(study, seed, config, *uncached))
            found[config].append(record)
    return found


def averages(records):
    """Mean of every number over the clips."""
    return {
        key: mean([r[key] for r in records]) for key in ("cost", "trial_cost", "computed", "psnr", "ssim", "agreement")
    }


def table(found):
    lines = [
        f"{'factors':8} {'alpha':>5} {'FLOPs':>7} {'trials':>7} {'computed':>8} {'PSNR':>6} {'SSIM':>7} "
        f"{'agreement':>9}"
    ]
    for config, records in found.items():
        row = averages(records)
        factors = f"{config.factor_t}, {config.factor_hw}, {config.factor_hw}"
        lines.append(
            f"{factors:8} {config.alpha:5g} {row['cost']:7.1%} {row['trial_cost']:7.2%} "
            f"{row['computed']:8.1f} {text(row['psnr'], '.2f'):>6} {text(row['ssim'], '.4f'):>7} "
            f"{text(row['agreement'], '.2f'):>9}"
        )
    return [*lines, "", "FLOPs: of everything, over the uncached run's; trials: their part of it"]


def paint(panels, found):
    """PSNR against cost: one marker per factors, joined by a line over the alphas."""
    panel = panels[0, 0]
    for i, factors in enumerate(FACTORS):
        rows = [averages(r) for c, r in found.items() if (c.factor_t, c.factor_hw) == factors]
        label = f"{factors[0]}, {factors[1]}, {factors[1]}: trials take {rows[0]['trial_cost']:.1%}"
        # each marker is smaller than the last: on a small latent, different factors can become the same ones
        panel.plot(
            [r["cost"] * 100 for r in rows],
            [r["psnr"] for r in rows],
            color=COLORS[i],
            marker=MARKERS[i],
            markersize=13 - 1.5 * i,
            linewidth=1.2,
            label=label,
        )
    panel.set_title(f"size of the trial, alpha {' and '.join(f'{a:g}' for a in ALPHAS)} (the cheaper end)")
    panel.set_xlabel("FLOPs, trials included, % of the uncached run's")
    panel.set_ylabel("PSNR of the video, dB")
    panel.legend(fontsize=10, title="factors over T, H, W")
    panel.grid(alpha=0.3)


def main():
    args = parser_of(__doc__).parse_args()
    study = Study.of(args)
    configs = [study.bench.config(alpha=a, factor_t=t, factor_hw=hw) for t, hw in FACTORS for a in ALPHAS]
    found = outcomes(study, Records(args.out / "downsample_factors.jsonl", study, args.fresh), configs, args.clips)
    write_table(args.out / "downsample_factors.txt", [*study.lines("downsample_factors", args.clips), *table(found)])
    write_plot(args.out / "downsample_factors.png", lambda panels: paint(panels, found), height=5.5)


if __name__ == "__main__":
    main()
