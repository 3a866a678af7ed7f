"""Cost against quality: `python -m benchmarks.frontier --steps 50 --clips 16`.

On the tiny model in the real host: no cache, uniform skipping with each reuse, EasyCache
with its threshold swept, LFCache with alpha swept, and with BlockCache in the paper's
setting and in others, from the same noise. Cost is
FLOPs counted by torch, trials included, over the uncached run's; quality is PSNR of the
decoded frames against the uncached clip. Resumes from what --out already holds.
"""

import argparse
import json
import math
import multiprocessing
import sys
from pathlib import Path

import torch

from benchmarks.baselines.block_variants import Variant, using
from benchmarks.study import RESULTS, head, host_version
from benchmarks.tiny_host import enter_host, find_host
from demo.machine import describe_machine

ALPHAS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
EASYCACHE = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.5)
FLASH_ALPHAS = (0.1, 0.35, 0.7)
# (name, BlockCache's settings, Variant or None)
BLOCKS = (
    ("paper", {}, None),
    ("late", {"start_percent": 0.5}, None),
    ("short", {"reuse_steps": 1}, None),
    ("short late few", {"cache_rate": 0.2, "reuse_steps": 1, "start_percent": 0.3}, None),
    ("drift", {"reuse_steps": 1}, Variant(drift=True)),
    ("forecast", {"reuse_steps": 1}, Variant(forecast=True)),
    ("drift forecast", {"reuse_steps": 1}, Variant(drift=True, forecast=True)),
    ("bounded", {"reuse_steps": 1}, Variant(forecast=True, drift_bound=0.3)),
)
SHARES = (0.5, 0.4, 1 / 3, 0.25, 0.2, 0.15, 0.1)


def settings(kinds):
    """(name, kind, parameters) of every row of the table."""
    rows = []
    for reuse in ("fitted", "taylor", "prediction", "residual"):
        shares = SHARES if reuse == "fitted" else SHARES[::2]
        rows += [(f"uniform {reuse} {s:.2f}", "uniform", {"share": s, "reuse": reuse}) for s in shares]
    rows += [(f"easycache {t:g}", "easycache", {"threshold": t}) for t in EASYCACHE]
    for reuse in ("fitted", "taylor", "prediction"):
        alphas = ALPHAS if reuse == "fitted" else ALPHAS[2::2]
        rows += [(f"lfcache {reuse} {a:g}", "lfcache", {"alpha": a, "reuse": reuse}) for a in alphas]
    rows += [("paper 0.5", "lfcache", {"alpha": 0.5, "trial": "plain", "reference": "cached", "reuse": "prediction"})]
    rows += [(f"flash {name} {a:g}", "flash", {"alpha": a, "blocks": blocks, "variant": variant})
             for name, blocks, variant in BLOCKS for a in FLASH_ALPHAS]
    rows += [(f"blockcache {name}", "flash", {"alpha": None, "blocks": blocks, "variant": variant})
             for name, blocks, variant in BLOCKS[:3]]
    return [row for row in rows if any(row[0].startswith(k) for k in kinds)]


def run_clip(bench, meter_class, args, seed, rows, done):
    """Yield one record per setting for the clip of this seed."""
    from benchmarks.baselines.host_caches import attach_easycache
    from benchmarks.baselines.uniform import attach_uniform, uniform_pattern
    from benchmarks.tiny_host import pack_module

    bench.ask_for(seed)
    base = bench.shifted(args.shift)
    noise = bench.noise(tuple(args.shape), seed)

    def sample(model):
        meter = meter_class()
        latent = bench.sample(meter.attach(model), args.sampler, args.scheduler, args.steps, noise=noise, seed=seed)
        return bench.vae.decode(latent), meter

    reference, full = sample(base)
    for name, kind, parameters in rows:
        if (seed, name) in done:
            continue
        record = {"seed": seed, "name": name}
        if kind == "uniform":
            model = attach_uniform(base, uniform_pattern(full.rows // 2, parameters["share"]), parameters["reuse"],
                                   pack_module("precisecache_core.reuse"), pack_module("nodes.host.parametrization"))
        elif kind == "easycache":
            model = attach_easycache(base, parameters["threshold"])
        elif kind == "flash":
            model = base if parameters["alpha"] is None else bench.lfcache(base, alpha=parameters["alpha"])
            model = bench.blockcache(model, **parameters["blocks"])
        else:
            model = bench.lfcache(base, **parameters)
        with using(parameters.get("variant")):
            video, meter = sample(model)
        if kind in ("lfcache", "flash"):
            run = bench.report(model)
            record |= {k: run[k] for k in ("decisions", "trial_agreement", "computed", "calls")}
            if run["blockcache"]:
                record |= {k: run["blockcache"][k] for k in ("pivotal", "block_calls", "block_calls_skipped")}
        error = (video - reference).square().mean().item()
        yield record | {"cost": meter.flops / full.flops, "psnr": -10 * math.log10(max(error, 1e-10))}


def work(args, seeds, rows, path):
    """One worker: its clips, one line of JSON per setting and clip."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    enter_host(find_host())
    import logging

    logging.disable(logging.INFO)
    from benchmarks.meter import Meter
    from benchmarks.tiny_host import TinyHost

    bench = TinyHost()
    done = {(r["seed"], r["name"]) for r in read(path)}
    for seed in seeds:
        if all((seed, name) in done for name, *_ in rows):
            continue
        with path.open("a") as file:
            for record in run_clip(bench, Meter, args, seed, rows, done):
                file.write(json.dumps(record) + "\n")
                file.flush()


def read(path):
    """Records of a results file, one per clip and setting; none if it is not there yet."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(r["seed"], r["name"]): r for r in records}.values())


def by_name(records, clips):
    """{name: {seed: record}} of the first `clips` clips."""
    groups = {}
    for record in records:
        if record["seed"] < clips:
            groups.setdefault(record["name"], {})[record["seed"]] = record
    return groups


def mean(group, seeds):
    """(mean cost, mean PSNR) of a setting over these clips."""
    return tuple(sum(group[s][key] for s in seeds) / len(seeds) for key in ("cost", "psnr"))


def lead(points, cost, psnr):
    """How much better `psnr` is than a swept family at the same cost, as text.

    Linear between the family's neighbours; "> x" over its cheapest setting where even
    that costs more; "-" above its range.
    """
    points = sorted(points)
    if points and cost < points[0][0]:
        return f"> {psnr - points[0][1]:+.2f}"
    for (c0, p0), (c1, p1) in zip(points, points[1:]):
        if c0 <= cost <= c1:
            return f"{psnr - p0 - (p1 - p0) * (cost - c0) / max(c1 - c0, 1e-9):+.2f}"
    return "-"


def table(records, clips):
    """The table as lines of text, with a cache's lead at equal cost over the other families."""
    groups = by_name(records, clips)
    families = ("easycache", "uniform fitted", "uniform prediction", "lfcache fitted")
    lines = [f"{'setting':26} {'cost':>6} {'PSNR':>6} {'clips':>5}  lead at this cost over {', '.join(families)}"]
    for name, group in groups.items():
        cost, psnr = mean(group, group)
        leads = []
        if name.startswith(("lfcache", "flash", "blockcache")):
            for family in families:
                # a family is only comparable on the same clips
                points = [mean(g, group) for n, g in groups.items()
                          if n.startswith(family) and not n == name and group.keys() <= g.keys()]
                leads.append(f"{lead(points, cost, psnr):>8}")
        lines.append(f"{name:26} {cost:6.1%} {psnr:6.2f} {len(group):5}  {'  '.join(leads)}".rstrip())
    decided = [r for r in records if r["seed"] == 0 and "decisions" in r]
    return [*lines, "", "decisions on the first clip", *(f"{r['name']:26} {r['decisions']}" for r in decided)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="simple")
    parser.add_argument("--shift", type=float, default=2.0)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    parser.add_argument("--only", nargs="*", default=[""], help="names of settings begin with one of these")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where records are kept (default: under results/)")
    args = parser.parse_args()
    if find_host() is None:
        sys.exit("benchmarks.frontier needs a ComfyUI: set COMFYUI_PATH")
    name = f"frontier_{args.sampler}{args.steps}_shift{args.shift:g}_{args.shape[2]}x{args.shape[3]}"
    base = args.out or RESULTS / name
    paths = [base.with_name(f"{base.name}.{w}.jsonl") for w in range(args.workers)]
    rows = settings(args.only)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(args, range(w, args.clips, args.workers), rows, paths[w]))
                 for w in range(args.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(p.exitcode for p in processes):
        sys.exit("a worker failed")
    lines = [*head("frontier", host_version(), describe_machine(), "one thread a worker"),
             f"latents {tuple(args.shape)}, {args.sampler} {args.scheduler} {args.steps} steps, "
             f"shift {args.shift:g}, cfg 4", "",
             *table([r for p in paths for r in read(p)], args.clips)]
    base.with_name(f"{base.name}.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
