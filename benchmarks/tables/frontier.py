"""Cost against quality: `python3 run.py bench frontier --steps 50 --clips 8`.

Every method of `benchmarks.methods` samples a tiny model in the real host, from the same noise.
Cost is the FLOPs counted by torch, trials included, over those of the uncached run. Quality is PSNR,
SSIM and, if it is installed, LPIPS of the decoded frames against the uncached clip. The command
resumes from what --out already holds; `--only` takes the beginnings of row names; `--table` measures
nothing.
"""

import json
import multiprocessing
import signal
import sys

import torch

from benchmarks.methods import Schedule, all_rows
from benchmarks.options import ModelParser
from benchmarks.study import COLORS, MARKERS, head, host_version, mean, psnr_and_ssim, text, write_plot
from benchmarks.study import write_table as keep_table
from testkit.models import trained_model
from testkit.tiny_host import enter_host, find_host
from tools.machine import describe_machine

BEST_PSNR = 100.0  # dB that equal videos count as, so that means stay finite
EASYCACHE_DEFAULT = "easycache 0.2"
OURS = "lfcache plan"
# families that the plot leaves out
NOT_DRAWN = ("corrector", "uniform t", "uniform r", "flash ", "literal", "blockcache", "candidate")
PRESETS = {"base": f"{OURS} base", "turbo": f"{OURS} turbo", "flash": "flash paper turbo"}
# the targets at EasyCache's default: (share of its FLOPs at its PSNR, dB above it at its FLOPs)
TARGETS = {"euler": (0.5, 10)}
OTHER_TARGETS = (0.65, 5)  # of samplers that use several calls at once


def measure(bench, schedule, seed, rows):
    """Yield one record per row for the clip of this seed."""
    from benchmarks.meter import Meter
    from benchmarks.perceptual import perceptual_distance

    bench.ask_for(seed)
    base = bench.shifted(schedule.shift)
    noise = bench.noise(schedule.shape, seed)

    def sample(model, meter):
        latent = bench.sample(
            meter.attach(model), schedule.sampler, schedule.scheduler, schedule.steps, noise=noise, seed=seed
        )
        return bench.vae.decode(latent)

    known = {}
    full = Meter(known)
    reference = sample(base, full)
    row_flops = full.flops / full.rows
    for row in rows:
        meter = Meter(known if row.is_whole else None)
        model = row.attach(bench, base, schedule)
        video = sample(model, meter)
        psnr, ssim = psnr_and_ssim(reference, video)
        record = {
            "seed": seed,
            "name": row.name,
            "cost": meter.flops / full.flops,
            "trial_cost": meter.trial_flops / full.flops,
            "computed": meter.computed(row_flops) * schedule.steps / full.rows,
            "psnr": min(psnr, BEST_PSNR),
            "ssim": ssim,
            "lpips": perceptual_distance(reference[0], video[0]),
        }
        if row.reports:
            run = bench.report(model)
            record |= {k: run[k] for k in ("decisions", "trial_agreement")}
            if run["blockcache"]:
                record |= {k: run["blockcache"][k] for k in ("block_calls", "block_calls_skipped")}
        yield record


def work(model, schedule, seeds, names, base, worker):
    """What one worker does: measure its clips and write one line of JSON per row and clip."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    enter_host(find_host(), is_fused=True)
    import logging

    logging.disable(logging.INFO)
    from testkit.tiny_host import TinyHost

    bench = TinyHost(model)
    rows = [row for row in all_rows() if row.name in names and not row.is_searched]
    done = {(r["seed"], r["name"]) for r in read(base)}
    for seed in seeds:
        left = [row for row in rows if (seed, row.name) not in done]
        if not left:
            continue
        with base.with_name(f"{base.name}.{worker}.jsonl").open("a") as file:
            for record in measure(bench, schedule, seed, left):
                file.write(json.dumps(record) + "\n")
                file.flush()


def read(base):
    """Records of a schedule, one per clip and row, from all workers' files."""
    files = sorted(base.parent.glob(f"{base.name}.*.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    return list({(r["seed"], r["name"]): r for r in map(json.loads, lines)}.values())


def by_name(records, clips):
    """{name: {seed: record}} of the first `clips` clips, in the order of `benchmarks.methods`."""
    groups = {row.name: {} for row in all_rows()}
    for record in records:
        if record["seed"] < clips and record["name"] in groups:
            groups[record["name"]][record["seed"]] = record
    return {name: group for name, group in groups.items() if group}


def point(group, seeds):
    """(mean cost, mean PSNR) of a row over these clips."""
    return tuple(mean([group[s][key] for s in seeds]) for key in ("cost", "psnr"))


def curve(groups, family, seeds):
    """Points of a family's rows, by cost; rows that lack one of these clips cannot be compared and are left out."""
    names = {row.name for row in all_rows() if row.family == family}
    return sorted(point(g, seeds) for name, g in groups.items() if name in names and seeds <= g.keys())


def interpolate(points, at, axis=0):
    """The other coordinate of the point where a curve of (cost, PSNR) has `at` on `axis`; None outside its range.

    Linear between neighbours.
    """
    for one, two in zip(points, points[1:]):
        low, high = sorted((one, two), key=lambda p: p[axis])
        if low[axis] <= at <= high[axis]:
            share = (at - low[axis]) / max(high[axis] - low[axis], 1e-12)
            return low[1 - axis] + share * (high[1 - axis] - low[1 - axis])
    return None


def lead(points, cost, psnr):
    """How much better `psnr` is than a curve at the same cost, as text.

    "> x": the lead over the curve's cheapest point, if even that costs more. "-": the cost is above
    the curve's range.
    """
    if points and cost < points[0][0]:
        return f"> {psnr - points[0][1]:+.2f}"
    there = interpolate(points, cost)
    return "-" if there is None else f"{psnr - there:+.2f}"


def table_lines(groups):
    """One line per row, with its lead at equal cost over some families."""
    families = ("easycache", "uniform corrected", "uniform fitted", OURS)
    lines = [
        f"{'row':26} {'computed':>8} {'cost':>6} {'trials':>6} {'PSNR':>6} {'SSIM':>6} {'LPIPS':>6} {'clips':>5}"
        f"  PSNR at this cost over: {', '.join(families)}"
    ]
    for name, group in groups.items():
        cost, psnr = point(group, group)
        values = {key: mean([r[key] for r in group.values()]) for key in ("computed", "trial_cost", "ssim", "lpips")}
        leads = [
            f"{lead([p for p in curve(groups, f, group.keys()) if p != (cost, psnr)], cost, psnr):>8}" for f in families
        ]
        lines.append(
            f"{name:26} {values['computed']:8.1f} {cost:6.1%} {values['trial_cost']:6.1%} {psnr:6.2f} "
            f"{text(values['ssim'], '6.4f')} {text(values['lpips'], '6.4f'):>6} {len(group):5}  "
            f"{'  '.join(leads)}".rstrip()
        )
    return lines


def own_groups(groups):
    """{name: group} of LFCache's plans."""
    return {row.name: groups[row.name] for row in all_rows() if row.family == OURS and row.name in groups}


def against_easycache(groups):
    """(cost, PSNR) of EasyCache at its default, LFCache's cost at that PSNR, whether it is below that, LFCache's PSNR
    at that cost; each of the last three may be None. None if EasyCache was not measured."""
    default = groups.get(EASYCACHE_DEFAULT)
    if not default:
        return None
    cost, psnr = point(default, default)
    ours = curve(groups, OURS, default.keys())
    there, is_below = interpolate(ours, psnr, axis=1), False
    if ours and psnr < min(ours, key=lambda p: p[1])[1]:  # even the cheapest setting is better
        there, is_below = ours[0][0], True
    return cost, psnr, there, is_below, interpolate(ours, cost)


def leads_over(groups, family):
    """How much better each of LFCache's plans is than a family at the same cost, where the family's curve spans it."""
    found = []
    for group in own_groups(groups).values():
        cost, psnr = point(group, group)
        there = interpolate(curve(groups, family, group.keys()), cost)
        if there is not None:
            found.append(psnr - there)
    return found


def target_lines(groups, sampler="euler"):
    """The project's targets and how far they are met, from the rows that were measured."""
    lines = ["", "targets"]
    share, gain = TARGETS.get(sampler, OTHER_TARGETS)
    if EASYCACHE_DEFAULT in groups:
        cost, psnr, there, is_below, better = against_easycache(groups)
        is_less, clips = "< " if is_below else "", len(groups[EASYCACHE_DEFAULT])
        lines += [
            f"EasyCache at its default: {cost:.1%} of the FLOPs, {psnr:.2f} dB ({clips} clips)",
            f"  LFCache at its PSNR: {is_less}{text(there, '.1%')} of the FLOPs, "
            f"{is_less}{text(there and there / cost, '.0%')} of EasyCache's (target: at most {share:.0%})",
            f"  LFCache at its FLOPs: {text(better, '.2f')} dB, "
            f"{text(better and better - psnr, '+.2f')} (target: at least +{gain})",
        ]
    for family in ("uniform corrected", "uniform fitted", "lfcache alpha", "paper"):
        leads = leads_over(groups, family)
        if leads:
            lines.append(
                f"LFCache over {family} at equal FLOPs, {len(leads)} settings within its range: "
                f"mean {mean(leads):+.2f} dB, least {min(leads):+.2f}"
            )
    for preset, name in PRESETS.items():
        if name in groups:
            cost, psnr = point(groups[name], groups[name])
            literal = "literal flash" if preset == "flash" else "paper"
            against = lead(curve(groups, literal, groups[name].keys()), cost, psnr)
            lines.append(f"{preset}: {cost:.1%}, {psnr:.2f} dB; over the literal paper's at equal FLOPs: {against}")
    return lines


def paint(groups, title):
    """A painter for `write_plot`: PSNR against cost, one line per family."""
    families = {}
    for row in all_rows():
        if row.name in groups and not row.family.startswith(NOT_DRAWN):
            families.setdefault(row.family, []).append(point(groups[row.name], groups[row.name]))

    def draw(panels):
        panel = panels[0, 0]
        for i, (family, points) in enumerate(families.items()):
            cost, psnr = zip(*sorted(points))
            is_ours = family == OURS
            panel.plot(
                [100 * c for c in cost],
                psnr,
                marker=MARKERS[i % len(MARKERS)],
                markersize=7 if is_ours else 5,
                color=COLORS[i % len(COLORS)],
                linewidth=3 if is_ours else 1.2,
                label=family,
                linestyle=("-", "--", ":")[i // len(COLORS) % 3],
                zorder=3 if is_ours else 2,
            )
        panel.set(
            xlabel="FLOPs, % of the uncached run, trials included (fewer is better)",
            ylabel="PSNR against the uncached clip, dB",
            title=title,
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, ncols=2)

    return draw


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="simple")
    parser.add_argument("--shift", type=float, help="by default the model's")
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose names begin with one of these")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="measure nothing, show what --out holds")
    parser.add_argument(
        "--whole", action="store_true", help="show only rows that have all these clips, in a table of its own"
    )
    args = parser.parse_args()
    if find_host() is None:
        sys.exit("this benchmark needs a ComfyUI: set COMFYUI_PATH")
    schedule = Schedule(args.sampler, args.scheduler, args.steps, args.shift, tuple(args.shape))
    base = args.out / f"frontier_{schedule.name}"
    if not args.table:
        run_workers(args, schedule, base)
    groups = by_name(read(base), args.clips)
    if args.whole:
        groups = {name: group for name, group in groups.items() if len(group) == args.clips}
        base = base.with_name(f"{base.name}_{args.clips}clips")
    if not groups:
        sys.exit(f"no records under {base}")
    title = (
        f"model {args.model}, {schedule.sampler} {schedule.scheduler} {schedule.steps} steps, shift {schedule.shift:g}"
    )
    lines = [
        *head("frontier", host_version(), describe_machine(), "one thread a worker"),
        f"{title}, latents {schedule.shape}, cfg 4; PSNR of equal videos counts as {BEST_PSNR:g} dB",
        "computed: calls' worth of whole evaluations, cond and uncond apart; trials: their share of the FLOPs",
        "",
        *table_lines(groups),
        *target_lines(groups, schedule.sampler),
    ]
    keep_table(base.with_name(f"{base.name}.txt"), lines)
    if not args.whole:
        write_plot(base.with_name(f"{base.name}.png"), paint(groups, title), height=7.0)


def run_workers(args, schedule, base):
    """Measure what is missing; the workers end with this process."""
    names = {row.name for row in all_rows() if row.name.startswith(tuple(args.only))}
    if not names:
        sys.exit(f"no row's name begins with {' or '.join(args.only)}")
    trained_model(args.model)  # ends here if it is missing, not in every worker
    base.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=work,
            daemon=True,
            args=(args.model, schedule, range(w, args.clips, args.workers), names, base, w),
        )
        for w in range(args.workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(p.exitcode for p in processes):
        sys.exit("a worker failed")


if __name__ == "__main__":
    main()
