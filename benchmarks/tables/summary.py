"""Both models and all schedules in one table, as the README shows it: `python3 run.py bench summary --clips 8`.

It measures nothing: it reads the records of `frontier` and compares only what was measured on all of these clips.
"""

import re
import sys

from benchmarks.methods import SCHEDULES, peer_rows
from benchmarks.options import ModelParser, results_of
from benchmarks.study import head, host_version, mean, write_table
from benchmarks.tables.frontier import (
    EASYCACHE_DEFAULT,
    OURS,
    PRESETS,
    against_easycache,
    by_name,
    curve,
    interpolate,
    leads_over,
    point,
    read,
)
from testkit.models import DEFAULT, MODELS
from tools.machine import describe_machine

TITLES = {DEFAULT: "bundled", "deep": "second"}
COLUMNS = ("model, sampler", "EasyCache", "turbo", "base", "same PSNR", "same cost", "even spread")


def whole(records, clips):
    """The rows that have all these clips, as `by_name` has them."""
    return {name: group for name, group in by_name(records, clips).items() if len(group) == clips}


def title_of(schedule):
    return f"{schedule.sampler}, {schedule.steps} steps, shift {schedule.shift:g}"


def cells(groups):
    """The figures of one schedule: EasyCache, turbo and base, then LFCache against EasyCache and even spreads."""
    cost, psnr, there, is_below, better = against_easycache(groups)
    presets = [point(groups[PRESETS[p]], groups[PRESETS[p]]) for p in ("turbo", "base")]
    spread = leads_over(groups, "uniform corrected")
    return [
        *(f"{100 * c:.1f} %, {p:.1f} dB" for c, p in ((cost, psnr), *presets)),
        "-" if there is None else f"{'below ' * is_below}{100 * there / cost:.0f} %",
        "-" if better is None else f"{better - psnr:+.1f} dB",
        f"{mean(spread):+.1f} dB, least {min(spread):+.1f}" if spread else "-",
    ]


def preset_line(preset, found):
    """How much better a preset is than EasyCache over these schedules, and at what share of its cost. found: groups."""
    better, worse = [], []
    for groups in found:
        (cost, psnr), (easy_cost, easy_psnr) = (
            point(groups[name], groups[name]) for name in (PRESETS[preset], EASYCACHE_DEFAULT)
        )
        (better if psnr >= easy_psnr else worse).append((psnr - easy_psnr, 100 * cost / easy_cost))
    texts = [
        f"{word} than EasyCache on {len(some)}, by {min(gains):.1f} to {max(gains):.1f} dB at {min(costs):.0f} to "
        f"{max(costs):.0f} % of its cost"
        for word, some in (("better", better), ("worse", worse))
        if some
        for gains, costs in [([abs(gain) for gain, _ in some], [share for _, share in some])]
    ]
    return f"{preset}: {'; '.join(texts)}"


def nearest_peer(found):
    """(dB below LFCache's curve, row, cost, schedule) of the peer's row that comes nearest to it at the same cost.

    found: {schedule: groups}. The peers are those of `peer_rows` but EasyCache. The lead is negative if a row is above.
    """
    peers = {row.name for row in peer_rows() if row.family != EASYCACHE_DEFAULT.split()[0]}
    distances = []
    for schedule, groups in found.items():
        for name in peers & groups.keys():
            cost, psnr = point(groups[name], groups[name])
            there = interpolate(curve(groups, OURS, groups[name].keys()), cost)
            if there is not None:
                distances.append((there - psnr, name, cost, schedule))
    return min(distances) if distances else None


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--clips", type=int, default=8)
    args = parser.parse_args()
    lines, bundled = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"], {}
    everything = []
    for model in MODELS:
        for schedule in SCHEDULES:
            base = results_of(model, args.out) / f"frontier_{schedule.name}"
            groups = whole(read(base), args.clips)
            if not {EASYCACHE_DEFAULT, PRESETS["turbo"], PRESETS["base"]} <= groups.keys():
                sys.exit(f"{base}: not all rows have {args.clips} clips")
            everything.append(groups)
            if model == DEFAULT:
                bundled[title_of(schedule)] = groups
            link = re.sub(r".*/benchmarks/", "benchmarks/", f"{base}.txt")
            lines.append(f"| {' | '.join([f'[{TITLES[model]}, {title_of(schedule)}]({link})', *cells(groups)])} |")
    lines += ["", *(preset_line(preset, everything) for preset in ("turbo", "base"))]
    peer = nearest_peer(bundled)
    if peer:
        distance, name, cost, schedule = peer
        lines += [f"nearest peer: {name}, {distance:.2f} dB below LFCache at {100 * cost:.1f} % ({schedule})"]
    title = [*head("summary", host_version(), describe_machine()), f"{args.clips} clips", ""]
    write_table(args.out / "summary.txt", [*title, *lines])


if __name__ == "__main__":
    main()
