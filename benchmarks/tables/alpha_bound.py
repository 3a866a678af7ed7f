"""Is the error linear in the threshold? `python3 run.py bench alpha_bound`.

Appendix A.2 of the paper. Eq. 31 and 33 bound the L2 norms of the final latent's and the video's
error by a constant times the threshold delta = alpha * delta_max. This measures the smallest
constant that holds for every clip and alpha, and whether mean PSNR falls as alpha grows. An alpha
is shown if it computes, on average, at least two calls fewer than the alpha shown before it. The
derivation assumes that a reused call repeats the last prediction; by default that strategy is
measured as well as LFCache's own default.
"""

from benchmarks.study import COLORS, MARKERS, Records, Study, mean, parser_of, text, write_plot, write_table
from benchmarks.tables.downsample_factors import outcomes
from precisecache_core.lfcache.config import REUSES, LFCacheConfig

ALPHAS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0)
CALLS_APART = 2
ERRORS = {"latent_error": "latent", "video_error": "video"}


def shown_of(found):
    """The part of `found` whose settings are at least CALLS_APART computed calls apart, smallest alpha first."""
    kept, last = {}, None
    for config in sorted(found, key=lambda c: c.alpha):
        computed = mean([r["computed"] for r in found[config]])
        if last is None or last - computed >= CALLS_APART:
            kept[config], last = found[config], computed
    return kept


def constant(found, error):
    """The smallest C for which error <= C * delta in every record."""
    return max(r[error] / r["threshold"] for records in found.values() for r in records if r["threshold"])


def is_falling(found):
    """True if mean PSNR falls from each alpha to the next."""
    psnr = [mean([r["psnr"] for r in records]) for records in found.values()]
    return all(after < before for before, after in zip(psnr, psnr[1:]))


def table(found, reuse):
    lines = [
        f"reuse {reuse}",
        f"{'alpha':>6} {'delta':>8} {'FLOPs':>7} {'computed':>8} {'PSNR':>6} {'SSIM':>7}   "
        f"{'latent error':>12} {'/ delta':>8}   {'video error':>11} {'/ delta':>8}",
    ]
    for config, records in found.items():
        row = {
            key: mean([r[key] for r in records]) for key in ("threshold", "cost", "computed", "psnr", "ssim", *ERRORS)
        }
        latent, video = (max(r[error] / r["threshold"] for r in records) for error in ERRORS)
        lines.append(
            f"{config.alpha:6g} {row['threshold']:8.3f} {row['cost']:7.1%} {row['computed']:8.1f} "
            f"{row['psnr']:6.2f} {text(row['ssim'], '.4f'):>7}   {row['latent_error']:12.3f} "
            f"{latent:8.3f}   {row['video_error']:11.3f} {video:8.3f}"
        )
    verdict = "falls with every alpha" if is_falling(found) else "does not fall with every alpha"
    return [
        *lines,
        f"smallest C with error <= C delta: latent {constant(found, 'latent_error'):.3f}, "
        f"video {constant(found, 'video_error'):.3f}",
        f"mean PSNR {verdict}",
        "",
    ]


def paint(panels, by_reuse):
    """Errors against delta with the lowest line C * delta above them, and PSNR against alpha."""
    for i, (reuse, found) in enumerate(by_reuse.items()):
        style = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
        records = [r for some in found.values() for r in some]
        for panel, (error, title) in zip(panels[0], ERRORS.items()):
            c = constant(found, error)
            ends = [pick(r["threshold"] for r in records) for pick in (min, max)]
            panel.scatter([r["threshold"] for r in records], [r[error] for r in records], s=24, label=reuse, **style)
            panel.plot(
                ends,
                [c * end for end in ends],
                color=style["color"],
                linestyle=("--", ":")[i % 2],
                linewidth=1.5,
                label=f"{c:.3g} delta",
            )
            panel.set_title(f"error of the {title}")
            panel.set_xlabel("threshold delta")
        panels[0][2].plot(
            [c.alpha for c in found],
            [mean([r["psnr"] for r in some]) for some in found.values()],
            linewidth=1.4,
            label=reuse,
            **style,
        )
    panels[0][0].set_ylabel("L2 norm of the error")
    panels[0][2].set_title("PSNR of the video")
    panels[0][2].set_xlabel("alpha")
    panels[0][2].set_xscale("log")
    alphas = sorted({c.alpha for found in by_reuse.values() for c in found})
    panels[0][2].set_xticks(alphas, [f"{a:g}" for a in alphas], fontsize=8)
    panels[0][2].minorticks_off()
    panels[0][2].set_ylabel("dB, mean over the clips")
    for panel in panels[0][:2]:
        panel.loglog()  # where a linear bound has slope 1
    for panel in panels[0]:
        panel.legend(fontsize=9)
        panel.grid(alpha=0.3)


def main():
    parser = parser_of(__doc__)
    default = LFCacheConfig().reuse
    parser.add_argument("--reuse", nargs="+", choices=REUSES, default=list(dict.fromkeys((default, "prediction"))))
    parser.add_argument("--alphas", nargs="+", type=float, default=ALPHAS, help="above 0")
    args = parser.parse_args()
    study = Study.of(args)
    records = Records(args.out / "alpha_bound.jsonl", study, args.fresh)
    by_reuse = {}
    for reuse in args.reuse:
        configs = [study.bench.config(alpha=a, reuse=reuse) for a in args.alphas]
        by_reuse[reuse] = shown_of(outcomes(study, records, configs, args.clips))
    lines = [line for reuse, found in by_reuse.items() for line in table(found, reuse)]
    write_table(args.out / "alpha_bound.txt", [*study.lines("alpha_bound", args.clips), *lines[:-1]])
    write_plot(args.out / "alpha_bound.png", lambda panels: paint(panels, by_reuse), columns=3)


if __name__ == "__main__":
    main()
