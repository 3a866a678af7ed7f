"""How much consecutive predictions differ in each band: `python3 run.py bench band_difference`.

The paper's Figure 4, Eq. 3. For each clip, one uncached run gives the L2 norm of the change from
call to call: of the whole prediction, of its low band (the true LFD) and of its high band. The
transform is orthonormal, so low^2 + high^2 = full^2. The paper prints no normalisation; the
second panel shows every curve over its own largest value, because only that counts for a
threshold relative to the warm-up's largest LFD. If the benchmark `step_impact` has measured the
same clips, the table gives each band's rank correlation with the damage of reusing that call.
"""

import torch

from benchmarks.figures.step_impact import low_band
from benchmarks.study import COLORS, Records, Study, mean, parser_of, write_plot, write_table
from precisecache_core.lfcache.latent.frequency import low_frequency_difference
from precisecache_core.record.rank import rank_correlation

BANDS = ("full", "low", "high")


def differences(study, seed):
    """{"seed", "cutoff", and for each band the norms of the change from calls 1, 2, … to the next}."""
    recording, _ = study.record(seed)
    cutoff = study.bench.config().cutoff
    found = {band: [] for band in BANDS}
    for before, after in zip(recording.predictions, recording.predictions[1:]):
        change = (after - before).float()
        found["full"].append(torch.linalg.vector_norm(change).item())
        found["low"].append(low_frequency_difference(after, before, cutoff).item())
        found["high"].append(torch.linalg.vector_norm(change - low_band(change, cutoff)).item())
    return {"seed": seed, "cutoff": cutoff, **found}


def impact_of(records, record, kind="prediction"):
    """{call: MSE}, as step_impact measured it for this clip."""
    return {r["call"]: r["mse"] for r in records if r["seed"] == record["seed"] and r["kind"] == kind}


def correlation(values, impact):
    """Spearman's correlation of a curve with the impact, at the calls whose impact was measured."""
    return rank_correlation([values[call - 1] for call in impact], list(impact.values()))


def fifths(values):
    """(mean of the first fifth, of the last fifth) of a curve."""
    n = len(values) // 5 or 1
    return mean(values[:n]), mean(values[-n:])


def table(records, impacts):
    lines = [
        f"{'band':5} {'first fifth':>12} {'last fifth':>12} {'last / first':>13}  "
        "rank correlation with the step's impact: mean (lowest)"
    ]
    for band in BANDS:
        first, last = (mean(side) for side in zip(*(fifths(r[band]) for r in records)))
        found = [correlation(r[band], impact) for r, impact in zip(records, impacts)]
        found = [c for c in found if c is not None]
        agreement = f"{mean(found):.2f} ({min(found):.2f}) of {len(found)} clips" if found else "-"
        lines.append(f"{band:5} {first:12.4f} {last:12.4f} {last / first:13.2f}  {agreement}")
    share = mean([low**2 / full**2 for r in records for low, full in zip(r["low"], r["full"])])
    lines += ["", f"share of the low band in the energy of the change: {share:.1%} (mean over calls and clips)"]
    if not any(impacts):
        lines.append("no impact of these clips is recorded: run the benchmark step_impact first")
    return lines


def paint(panels, records, impacts):
    """Left: the norms. Right: every mean curve over its largest value, with the impact."""
    left, right = panels[0]
    calls = range(2, len(records[0]["full"]) + 2)
    for band, color, style in zip(BANDS, COLORS, ("-", "--", ":")):
        for record in records:
            left.plot(calls, record[band], color=color, linewidth=0.6, alpha=0.5)
        curve = [mean(values) for values in zip(*(r[band] for r in records))]
        left.plot(calls, curve, color=color, linestyle=style, linewidth=2, label=f"{band} band, mean")
        right.plot(
            calls, [v / max(curve) for v in curve], color=color, linestyle=style, linewidth=2, label=f"{band} band"
        )
    known = [i for i in impacts if i]
    if known:
        common = sorted(set.intersection(*(set(i) for i in known)))
        damage = [mean([i[call] for i in known]) ** 0.5 for call in common]
        right.plot(
            [call + 1 for call in common],
            [d / max(damage) for d in damage],
            color="black",
            marker="o",
            markersize=4,
            linestyle="none",
            label="impact of reusing the call (root MSE)",
        )
    left.set_title("change of the prediction from call to call")
    left.set_ylabel("L2 norm")
    right.set_title("the same over its largest value")
    for panel in (left, right):
        panel.set_yscale("log")
        panel.set_xlabel("model call")
        panel.legend(fontsize=9)
        panel.grid(alpha=0.3)


def main():
    parser = parser_of(__doc__)
    args = parser.parse_args()
    study = Study.of(args)
    known = Records(args.out / "step_impact.jsonl", study).under_settings()
    records = Records(args.out / "band_difference.jsonl", study, args.fresh)
    shown = []
    for seed in range(args.clips):
        found = records.find(seed=seed, cutoff=study.bench.config().cutoff)
        shown.append(found or records.add(differences(study, seed)))
    impacts = [impact_of(known, record) for record in shown]
    write_table(args.out / "band_difference.txt", [*study.lines("band_difference", args.clips), *table(shown, impacts)])
    write_plot(args.out / "band_difference.png", lambda panels: paint(panels, shown, impacts), columns=2)


if __name__ == "__main__":
    main()
