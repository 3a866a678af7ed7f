"""The paper's Table 1 outside ComfyUI: `python3 run.py bench table1`.

Our presets and diffusers' own caches sample the same clips from the same noise through the same pipeline. Quality is
PSNR, SSIM and, where it is installed, LPIPS of the frames against the uncached clip. MACs are counted by torch, trials
included. With a GPU, --weights (a folder or a name that `from_pretrained` takes) and --prompts it is the paper's table,
with the latency of each method; text encoder and VAE are in its MACs and seconds. Without --weights it is the bundled
tiny model through WanPipeline, and the table says so: its MACs and its quality are real, but it says nothing about
seconds or about a large model's videos.
The command resumes from what --out already holds; --only takes the beginnings of row names; --table measures nothing.
"""

import contextlib
import importlib.metadata
import json
import logging
import time
from pathlib import Path

import torch

from benchmarks.diffusers_clips import RealClips, TinyClips
from benchmarks.diffusers_methods import METHODS, OURS, calibrate_magcache
from benchmarks.meter import flop_counter
from benchmarks.options import ModelParser
from benchmarks.perceptual import perceptual_distance
from benchmarks.quality import compare
from benchmarks.study import COLORS, MARKERS, write_plot
from tools.machine import describe_machine, head

BEST_PSNR = 100.0  # dB that equal videos count as, so that means stay finite


def measure(clips, method, seed, reference):
    """One record: cost (FLOPs over those of the uncached clip), seconds on a GPU, quality."""
    context = contextlib.nullcontext() if method is None else method.apply(clips.pipe, clips.steps)
    with context as cache:
        counter = flop_counter()
        with counter:
            video = clips.sample(seed)
        seconds = None
        if isinstance(clips, RealClips):  # again, because counting takes time too
            torch.cuda.synchronize()
            start = time.perf_counter()
            clips.sample(seed)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        run = cache.report()["runs"][-1] if cache else None
    if reference is None:
        return video, {"flops": counter.get_total_flops(), "seconds": seconds}
    psnr, ssim = compare(reference[0], video)
    record = {
        "seed": seed,
        "name": method.name,
        "cost": counter.get_total_flops() / reference[1]["flops"],
        "speedup": seconds and reference[1]["seconds"] / seconds,
        "seconds": seconds,
        "psnr": min(psnr, BEST_PSNR),
        "ssim": ssim,
        "lpips": perceptual_distance(reference[0], video),
    }
    return video, record | ({"decisions": run["decisions"]} if run else {})


def work(clips, methods, seeds, path):
    """Measure what the file does not hold yet; one line of JSON per method and clip."""
    done = {(r["seed"], r["name"]) for r in read(path)}
    for seed in seeds:
        left = [method for method in methods if (seed, method.name) not in done]
        if not left:
            continue
        reference = measure(clips, None, seed, None)
        for method in left:
            try:
                if method.family == "MagCache" and not hasattr(clips.pipe, "mag_ratios"):
                    calibrate_magcache(clips.pipe, lambda: clips.sample(1000), clips.steps)
                record = measure(clips, method, seed, reference)[1]
            except Exception as error:  # a cache of others that cannot run on this pipeline is a row that says so
                if method.family in (OURS, "flash"):
                    raise
                record = {"seed": seed, "name": method.name, "error": f"{type(error).__name__}: {error}"[:200]}
                clips.pipe.transformer.disable_cache()
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")


def read(path):
    lines = path.read_text().splitlines() if path.is_file() else []
    return list({(r["seed"], r["name"]): r for r in map(json.loads, lines)}.values())


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def points_of(records):
    """{method name: (mean cost, mean PSNR)}, of those without an error."""
    found = {}
    for name in dict.fromkeys(r["name"] for r in records):
        rows = [r for r in records if r["name"] == name and "error" not in r]
        if rows:
            found[name] = (mean([r["cost"] for r in rows]), mean([r["psnr"] for r in rows]))
    return found


def at(curve, cost):
    """PSNR of a curve of (cost, PSNR), sorted, at a cost; None outside of it. Linear between neighbours."""
    for (low, first), (high, second) in zip(curve, curve[1:]):
        if low <= cost <= high:
            return first + (second - first) * ((cost - low) / max(high - low, 1e-12))
    return None


def leads(points, methods):
    """[(name, cost, lead in dB or None)]: ours over each setting of another family, at that setting's cost."""
    curve = sorted(points[m.name] for m in methods if m.family == OURS and m.name in points)
    others = [m.name for m in methods if m.family not in (OURS, "flash") and m.name in points]
    found = []
    for name in others:
        cost, psnr = points[name]
        there = at(curve, cost)
        found.append((name, cost, None if there is None else there - psnr))
    return found


def nearest(points, methods):
    """[(name, cost, nearest family or None, lead over it in dB)]: each of ours over the best other at its cost."""
    rivals = {m.family: [] for m in methods if m.family not in (OURS, "flash")}
    for method in methods:
        if method.family in rivals and method.name in points:
            rivals[method.family].append(points[method.name])
    found = []
    for method in methods:
        if method.family != OURS or method.name not in points:
            continue
        cost, psnr = points[method.name]
        there = [(at(sorted(curve), cost), family) for family, curve in rivals.items()]
        best = max(((value, family) for value, family in there if value is not None), default=None)
        found.append((method.name, cost, best and best[1], best and psnr - best[0]))
    return found


def paint(points, title):
    """A painter for `write_plot`: PSNR against cost, one line per family."""
    families = {}
    for method in METHODS:
        if method.name in points:
            families.setdefault(method.family, []).append(points[method.name])

    def draw(panels):
        panel = panels[0, 0]
        for i, (family, found) in enumerate(families.items()):
            cost, psnr = zip(*sorted(found))
            width = 3 if family == OURS else 1.2
            style = {"marker": MARKERS[i % len(MARKERS)], "color": COLORS[i % len(COLORS)], "linewidth": width}
            dashes = ("-", "--")[i // len(COLORS) % 2]
            panel.plot([100 * c for c in cost], psnr, dashes, label=family, **style)
        panel.set(
            xlabel="FLOPs, % of the uncached run, trials included (fewer is better)",
            ylabel="PSNR against the uncached clip, dB",
            title=title,
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, ncols=2)

    return draw


def cell(value, form):
    return "-" if value is None else format(value, form)


def table_lines(records, methods):
    lines = [
        f"{'method':22} {'MACs':>7} {'PSNR':>7} {'SSIM':>7} {'LPIPS':>7} {'seconds':>8} {'speed-up':>8} {'clips':>5}"
    ]
    for method in methods:
        rows = [r for r in records if r["name"] == method.name]
        good = [r for r in rows if "error" not in r]
        if rows and not good:
            lines.append(f"{method.name:22} did not run: {rows[0]['error']}")
        if not good:
            continue
        values = {key: mean([r[key] for r in good]) for key in ("cost", "psnr", "ssim", "lpips", "seconds", "speedup")}
        lines.append(
            f"{method.name:22} {values['cost']:7.1%} {values['psnr']:7.2f} {cell(values['ssim'], '7.4f'):>7} "
            f"{cell(values['lpips'], '7.4f'):>7} {cell(values['seconds'], '8.2f'):>8} "
            f"{cell(values['speedup'], '8.2f'):>8} {len(good):5}"
        )
    return lines


def lead_lines(records, methods):
    found = leads(points_of(records), methods)
    inside = [lead for _, _, lead in found if lead is not None]
    lines = [
        "",
        "ours (base, turbo and budget, linear between them) against each other setting, at that setting's MACs",
    ]
    for name, cost, lead in found:
        lines.append(
            f"  {name:22} {cost:6.1%}  " + ("outside of what ours spans" if lead is None else f"{lead:+.2f} dB")
        )
    if inside:
        lines.append(f"least lead {min(inside):+.2f} dB, mean {mean(inside):+.2f}, over {len(inside)} settings")
    lines += ["", "each of ours against the best of the others at its MACs (linear between a family's settings)"]
    for name, cost, family, lead in nearest(points_of(records), methods):
        lines.append(f"  {name:22} {cost:6.1%}  " + (f"{lead:+.2f} dB over {family}" if family else "none spans it"))
    return lines


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--scheduler", choices=("euler", "unipc"), default="euler", help="of the tiny model's clips")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of the names of the rows to measure")
    parser.add_argument("--table", action="store_true", help="measure nothing, only write the table")
    parser.add_argument("--part", type=int, nargs=2, default=[0, 1], help="measure every n-th clip: i n")
    parser.add_argument("--weights", help="of a real pipeline; needs a GPU")
    parser.add_argument("--prompts", type=Path, help="a file, one prompt a line")
    parser.add_argument("--size", type=int, nargs=2, default=[832, 480], help="width and height")
    parser.add_argument("--frames", type=int, default=81)
    args = parser.parse_args()
    if args.weights and not (torch.cuda.is_available() and args.prompts):
        parser.error("--weights needs a GPU, and --prompts; without --weights the tiny model is measured")
    logging.disable(logging.WARNING)
    torch.set_grad_enabled(False)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.weights:
        prompts = args.prompts.read_text("utf-8").splitlines()
        clips = RealClips(args.weights, prompts, args.steps, args.size, args.frames)
        name = f"table1_{Path(args.weights).name}_{args.steps}_{'x'.join(map(str, (*args.size, args.frames)))}"
    else:
        clips = TinyClips(args.model, args.steps, args.scheduler)
        name = f"table1_tiny_{args.scheduler}{args.steps}"
    part, parts = args.part
    path = args.out / f"{name}.{part}.jsonl"
    methods = [m for m in METHODS if any(m.name.startswith(start) for start in args.only)]
    if not args.table:
        work(clips, methods, range(part, args.clips, parts), path)
    records = [r for file in sorted(args.out.glob(f"{name}.*.jsonl")) for r in read(file)]
    records = [r for r in records if r["seed"] < args.clips]
    facts = f"diffusers {importlib.metadata.version('diffusers')}", describe_machine()
    lines = [
        *head("table1", *facts),
        f"{clips.what}, {type(clips.pipe).__name__}, {args.steps} steps, {args.clips} clips",
    ]
    if not args.weights:
        lines.append("No real weights here: this is a tiny model. It is not the paper's Table 1 and has no latency.")
    lines += ["", *table_lines(records, METHODS), *lead_lines(records, METHODS)]
    (args.out / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    write_plot(args.out / f"{name}.png", paint(points_of(records), clips.what), height=7.0)


if __name__ == "__main__":
    main()
