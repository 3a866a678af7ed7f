"""How a reused call is predicted, strategy by strategy: `python3 run.py bench reuse_strategies`.

The paper's Table 4, with alpha 0.5 and 0.7 (base and turbo), in two ways. "own": LFCache decides with
each strategy, as in the paper; a strategy changes the later latents and with them the decisions.
"same": every strategy reuses exactly the calls that LFCache with its default strategy reused, so that
only the reused predictions differ; its cost is that of LFCache's run, trials included.
"""

from dataclasses import asdict, replace

from benchmarks.peers.uniform import attach_uniform
from benchmarks.study import COLORS, MARKERS, Records, Study, parser_of, text, write_plot, write_table
from benchmarks.tables.downsample_factors import averages, outcome, outcomes
from precisecache_core.lfcache.config import REUSES

ALPHAS = (0.5, 0.7)
DECISIONS = ("own", "same")


def replayed(study, seed, config, decisions):
    """The final latent where the calls marked R in `decisions` are reused and the rest computed."""
    model = attach_uniform(study.base, [d == "C" for d in decisions], config.reuse)
    return study.sample(model, seed)


def strategies(study, records, clips):
    """{config: [record of each clip]}; each record has an entry "same"."""
    default = study.bench.config()

    def measure(study, seed, config, reference, full):
        own = outcome(study, seed, config, reference, full)
        # the default strategy comes first, so its decisions are recorded, unless this is the default
        deciding = records.find(seed=seed, config=asdict(replace(config, reuse=default.reuse))) or own
        same = own
        if deciding is not own:
            same = study.quality(reference, replayed(study, seed, config, deciding["decisions"]))
        return own | {
            "same": {
                "cost": deciding["cost"],
                "computed": deciding["computed"],
                "psnr": same["psnr"],
                "ssim": same["ssim"],
            }
        }

    order = sorted(REUSES, key=lambda reuse: reuse != default.reuse)
    configs = [replace(default, alpha=alpha, reuse=reuse) for alpha in ALPHAS for reuse in order]
    return outcomes(study, records, configs, clips, measure)


def rows_of(found):
    """[(config, {"own": averages, "same": averages})]"""
    return [
        (
            config,
            {
                "own": averages(records),
                "same": averages([{"trial_cost": None, "agreement": None, **r["same"]} for r in records]),
            },
        )
        for config, records in found.items()
    ]


def table(found):
    lines = [
        f"{'':28}{'own decisions':34} same decisions",
        f"{'reuse':20} {'alpha':>6} " + "  ".join([f"{'FLOPs':>7} {'computed':>8} {'PSNR':>6} {'SSIM':>7} "] * 2),
    ]
    for config, row in rows_of(found):
        cells = [
            f"{row[d]['cost']:7.1%} {row[d]['computed']:8.1f} {text(row[d]['psnr'], '.2f'):>6} "
            f"{text(row[d]['ssim'], '.4f'):>7} "
            for d in DECISIONS
        ]
        lines.append(f"{config.reuse:20} {config.alpha:6g} {'  '.join(cells)}".rstrip())
    return lines


def paint(panels, found):
    """PSNR against cost of every strategy, with its own decisions and with the same decisions."""
    rows = rows_of(found)
    panels[0][1].sharey(panels[0][0])
    for panel, decisions in zip(panels[0], DECISIONS):
        for i, reuse in enumerate(REUSES):
            some = [row[decisions] for config, row in rows if config.reuse == reuse]
            panel.plot(
                [r["cost"] * 100 for r in some],
                [r["psnr"] for r in some],
                color=COLORS[i % len(COLORS)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=8,
                linewidth=1.2,
                label=reuse,
            )
        panel.set_title(f"{decisions} decisions, alpha {' and '.join(f'{a:g}' for a in ALPHAS)}")
        panel.set_xlabel("FLOPs, % of the uncached run's")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("PSNR of the video, dB")
    panels[0][0].legend(fontsize=10, title="what is reused")


def main():
    args = parser_of(__doc__).parse_args()
    study = Study.of(args)
    found = strategies(study, Records(args.out / "reuse_strategies.jsonl", study, args.fresh), args.clips)
    write_table(args.out / "reuse_strategies.txt", [*study.lines("reuse_strategies", args.clips), *table(found)])
    write_plot(args.out / "reuse_strategies.png", lambda panels: paint(panels, found), columns=2, height=5)


if __name__ == "__main__":
    main()
