"""What both caches cost at full size: `python3 run.py bench cost --model wan14b --size 720p`.

The host's own model with random weights is sampled by the stock KSampler's code on a GPU. Random
weights take as long as trained ones but say nothing about when to reuse, so the decisions are forced
to those of the paper's settings (see `benchmarks.schedules`). Without a GPU, a small model of the same
architecture runs on the CPU. If the GPU's memory does not suffice, the model gets fewer blocks.
`--steps 8 --rounds 1` measures every part in a tenth of the time, on few calls.
"""

import argparse
import gc
import logging
import platform
import statistics
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch

from benchmarks.schedules import PUBLISHED, STEPS, forced, spread
from benchmarks.timers import Timers
from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.lfcache.config import MINIMUM_STEPS, LFCacheConfig
from testkit.full_size import MODELS, build, layered
from testkit.tiny_host import ROOT, enter_host, find_host
from tools.comfyui.locate import comfyui_version

GB = 1e9
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# for the CPU: width, blocks and positions of a model that takes a quarter of a second per call
SMALL = {
    "wan14b": dict(dim=256, ffn_dim=704, num_heads=2),
    "wan1.3b": dict(dim=256, ffn_dim=1408, num_heads=2),
    "hunyuan": dict(hidden_size=256, num_heads=2),
}
SMALL_LAYERS, SMALL_LATENT, SMALL_TEXT = 10, (16, 4, 16, 24), 32

# the run for BlockCache: two calls of warm-up, the second of them a refresh, then three that skip, and again
BLOCK_STEPS, BLOCK_WARMUP, BLOCK_REUSE = 10, 2, 3


@dataclass(frozen=True)
class Case:
    """What is measured. latent: (C, T, H, W); text: how many tokens; sizes: they replace the model's own."""

    model: str
    size: str
    latent: tuple
    layers: int
    dtype: torch.dtype
    device: str
    text: int
    sizes: dict
    notes: tuple = ()

    @property
    def label(self):
        return f"{self.model}_{self.size}_{self.device}"

    def without_half(self, reason):
        """The same case with half of the blocks."""
        layers = self.layers // 2
        return replace(self, layers=layers, notes=(*self.notes, f"{reason}: {layers} blocks instead of {self.layers}"))


def case_of(model="wan14b", size="720p", dtype="bf16", device=None, layers=None):
    """The Case that was asked for, or a smaller one if there is no GPU."""
    spec = MODELS[model]
    if device != "cpu" and torch.cuda.is_available():
        resolution = size if size in spec.resolutions else tuple(map(int, size.split("x")))
        return Case(
            model, size, spec.latent(resolution), layers or spec.blocks, DTYPES[dtype], "cuda", spec.text[0], {}
        )
    layers = layers or SMALL_LAYERS
    sizes = ", ".join(f"{k} {v}" for k, v in SMALL[model].items())
    note = (
        f"NOT FULL SIZE, on the CPU{'' if device == 'cpu' else ' (no GPU was found)'}: the architecture of {model} "
        f"with {layers} blocks, {sizes}, fp32, text of {SMALL_TEXT} tokens; seconds are of the process, not of the "
        "clock: others use this CPU"
    )
    return Case(model, "small", SMALL_LATENT, layers, torch.float32, "cpu", SMALL_TEXT, SMALL[model], (note,))


def random_model(case):
    """A patcher of the host's model with random weights, as the stock loader makes them."""
    import comfy.model_management
    import comfy.model_patcher

    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    model = build(case.model, offload, case.dtype, **layered(case.model, case.layers), **case.sizes)
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in model.diffusion_model.named_parameters():
        if weight.ndim == 1:
            weight.fill_(float("norm" in name and name.endswith(("weight", "scale"))))
        else:
            values = torch.randn(weight.shape, device=device, dtype=weight.dtype, generator=generator)
            weight.copy_(values * (0.5 / weight[0].numel() ** 0.5))
    return comfy.model_patcher.ModelPatcher(model, device, offload)


def sample(case, patcher, steps):
    """One run of the sampler; returns the latent."""
    import comfy.sample

    generator = torch.Generator().manual_seed(0)
    spec = MODELS[case.model]

    def conditioning():
        options = {"pooled_output": torch.randn(1, 768, generator=generator)} if case.model == "hunyuan" else {}
        return [[torch.randn(1, case.text, spec.text[1], generator=generator), options]]

    noise = torch.randn(1, *case.latent, generator=generator)
    cfg = 5.0 if spec.branches == 2 else 1.0
    return comfy.sample.sample(
        patcher,
        noise,
        steps,
        cfg,
        "euler",
        "simple",
        conditioning(),
        conditioning(),
        torch.zeros_like(noise),
        seed=0,
        disable_pbar=True,
    )


def synchronize(case):
    if case.device == "cuda":
        torch.cuda.synchronize()


def fitted(case):
    """(Case, patcher) with as many blocks as the GPU holds, warmed up."""
    import comfy.model_management

    while True:
        patcher = None
        try:
            patcher = random_model(case)
            sample(case, patcher, 2)
            synchronize(case)
            if not getattr(patcher.model, "model_lowvram", False):
                return case, patcher
            reason = "the host keeps a part of the weights off the GPU"
        except torch.cuda.OutOfMemoryError:
            reason = "the GPU's memory ran out"
        if case.layers < 6:
            sys.exit(f"{reason}, even with {case.layers} blocks: choose a smaller --size")
        case = case.without_half(reason)
        del patcher
        comfy.model_management.unload_all_models()
        gc.collect()
        torch.cuda.empty_cache()


@dataclass
class Run:
    """One measured run: seconds (see `clock`), peak bytes on the GPU (None on a CPU), its Timers, and its
    entry of the report (None without a cache)."""

    seconds: float
    peak: int | None
    timers: Timers
    report: dict | None = None


def clock(case):
    """The clock for whole runs; on a CPU that of the process, because other processes compute too."""
    return time.perf_counter if case.device == "cuda" else time.process_time


def measured(case, patcher, steps):
    """The Run of one sampling."""
    from PreciseCache.nodes.host.attachment import attachment_of
    from PreciseCache.nodes.host.reports import runs_of

    now = clock(case)
    timers = Timers(case.device == "cuda", now)
    timed = timers.attach(patcher)
    synchronize(case)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = now()
    sample(case, timed, steps)
    synchronize(case)
    seconds = now() - start
    run = Run(seconds, torch.cuda.max_memory_allocated() if case.device == "cuda" else None, timers)
    held = attachment_of(patcher)
    if held is not None:
        run.report = runs_of(held.id)[-1]
    return run


def parts(run):
    """{part: its seconds, one by one}: computed calls, trials, and our own code in computed and in reused calls."""
    compute, trials = iter(run.timers.seconds("compute")), iter(run.timers.seconds("trial"))
    found = {"call": [], "trial": [], "own C": [], "own R": []}
    for decision, whole in zip(run.report["decisions"], run.timers.seconds("call")):
        trial = next(trials)
        call = next(compute) if decision == "C" else 0.0
        found["trial"].append(trial)
        found[f"own {decision}"].append(whole - trial - call)
        if decision == "C":
            found["call"].append(call)
    return found


def variants(patcher, model, steps):
    """{name: (patcher, decision string or None)} of the variants that are compared."""
    from PreciseCache.nodes.host.attachment import attach

    row = PUBLISHED["hunyuan" if model == "hunyuan" else "wan14b"]
    decisions = spread(steps, round(steps * row.computed("turbo") / STEPS))
    turbo = attach(patcher, lfcache=LFCacheConfig())
    return {
        "uncached": (patcher, None),
        "turbo": (turbo, decisions),
        "flash": (attach(turbo, blockcache=BlockCacheConfig()), decisions),
    }


def forced_runs(case, patcher, steps, rounds, say=lambda text: None):
    """{variant: [Run]}; the variants take turns, and every round starts with another one."""
    from PreciseCache.precisecache_core.lfcache.controller import LFCacheController

    chosen = variants(patcher, case.model, steps)
    runs = {name: [] for name in chosen}
    for i in range(rounds):
        order = list(chosen)[i % len(chosen) :] + list(chosen)[: i % len(chosen)]
        for name in order:
            model, decisions = chosen[name]
            force = forced(decisions, LFCacheController) if decisions else nullcontext()
            with force:
                runs[name].append(measured(case, model, steps))
            say(f"round {i + 1} of {rounds}: {name} {runs[name][-1].seconds:.4g} s")
    return runs


@contextmanager
def timed_skips(case):
    """Timers whose spans `skip` are the additions of residuals made while inside."""
    from PreciseCache.precisecache_core.blockcache import block_pass

    timers = Timers(case.device == "cuda", clock(case))
    timers.spans["skip"] = []
    add = block_pass.add_residuals

    def timed(*args):
        with timers.span("skip"):
            return add(*args)

    with mock.patch.object(block_pass, "add_residuals", timed):
        yield timers


def block_runs(case, patcher, say=lambda text: None):
    """[(storage, cache_device, Run, seconds of every skip)]: BlockCache alone, every call computed."""
    from PreciseCache.nodes.host.attachment import attach

    found = []
    for storage in ("merged", "per_block"):
        for cache_device in ("model", "cpu"):
            model = attach(
                patcher,
                blockcache=BlockCacheConfig(
                    warmup=BLOCK_WARMUP, reuse_steps=BLOCK_REUSE, storage=storage, cache_device=cache_device
                ),
            )
            with timed_skips(case) as timers:
                run = measured(case, model, BLOCK_STEPS)
            say(f"BlockCache {storage} {cache_device} {run.seconds:.4g} s")
            found.append((storage, cache_device, run, timers.seconds("skip")))
    return found


def summary(seconds, unit=1.0):
    """Median and range of seconds, in a unit, as text."""
    values = [s / unit for s in seconds]
    if not values:
        return "none"
    return f"{statistics.median(values):9.4g} ({min(values):.4g} to {max(values):.4g}, {len(values)} times)"


def memory(size):
    if size is None:
        return "not measured"
    return f"{size / GB:.2f} GB" if size > 1e8 else f"{size / 1e6:.2f} MB"


def part_lines(runs):
    """The lines for calls, trials and our own code, from all forced turbo runs."""
    together = {"call": [], "trial": [], "own C": [], "own R": []}
    for run in runs["turbo"]:
        for name, seconds in parts(run).items():
            together[name] += seconds
    if not together["trial"]:
        return ["LFCache made no trial: nothing to measure"]
    titles = {
        "call": "computed call",
        "trial": "trial",
        "own C": "LFCache's own code, computed call",
        "own R": "LFCache's own code, reused call",
    }
    base = statistics.median(together["call"])
    return [
        f"{titles[name]:34} {summary(seconds, 1e-3)} ms"
        + (f"  {statistics.median(seconds) / base:.2%} of a call" if seconds else "")
        for name, seconds in together.items()
    ]


def block_lines(found):
    """One line for each storage and device of BlockCache."""
    lines = []
    for storage, device, run, skips in found:
        entry, calls = run.report["blockcache"], run.timers.seconds("compute")
        cycle = BLOCK_REUSE + 1
        skipping = [i for i in range(BLOCK_WARMUP, len(calls)) if (i - BLOCK_WARMUP + 1) % cycle]
        refreshing = [i for i in range(BLOCK_WARMUP - 1, len(calls)) if i not in skipping]
        lines.append(
            f"BlockCache {storage:9} {device:5}  one skip {summary(skips, 1e-3)} ms; "
            f"{entry['block_calls_skipped']} of {entry['block_calls']} block calls in {len(skips)} skips; "
            f"a call that skips {statistics.median(calls[i] for i in skipping) * 1e3:.4g} ms, "
            f"that refreshes {statistics.median(calls[i] for i in refreshing) * 1e3:.4g} ms; "
            f"GPU peak {memory(run.peak)}, residuals {memory(run.report['cache_bytes']['blockcache'])}"
        )
        lines += [f"  it said: {text}" for text in run.report["warnings"]]
    return lines


def end_to_end_lines(runs, decisions):
    """The lines for whole runs, with their ratio to the uncached ones."""
    base = statistics.median(run.seconds for run in runs["uncached"])
    lines = [f"forced decisions: {decisions} ({decisions.count('C')} of {len(decisions)} computed)"]
    for name, made in runs.items():
        seconds = [run.seconds for run in made]
        median = statistics.median(seconds)
        peak = None if made[0].peak is None else max(run.peak for run in made)
        text = (
            f"{name:9} {summary(seconds)} s; {median / base:.1%} of uncached, {base / median:.2f} times as fast; "
            f"GPU peak {memory(peak)}"
        )
        report = made[-1].report
        if report:
            text += "; decisions as forced" if report["decisions"] == decisions else f"; made {report['decisions']}"
            if report["blockcache"]:
                entry = report["blockcache"]
                text += f"; {entry['block_calls_skipped']} of {entry['block_calls']} block calls skipped"
        lines.append(text)
        lines += [f"  it said: {warning}" for warning in report["warnings"]] if report else []
    return lines


def report_lines(case, patcher, steps, rounds, say=lambda text: None):
    """Yield every measurement of a case as a group of lines, as soon as it is made.

    If memory runs out, the group says so.
    """
    try:
        yield [*block_lines(block_runs(case, patcher, say)), ""]
    except torch.cuda.OutOfMemoryError as error:
        yield [f"BlockCache: memory ran out ({error})", ""]
    try:
        runs = forced_runs(case, patcher, steps, rounds, say)
        decisions = variants(patcher, case.model, steps)["turbo"][1]
        yield [*part_lines(runs), "", *end_to_end_lines(runs, decisions)]
    except torch.cuda.OutOfMemoryError as error:
        yield [f"end to end: memory ran out ({error})"]


def machine(case):
    """The device in words."""
    if case.device == "cpu":
        return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"
    return f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / GB:.0f} GB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=SMALL, default="wan14b")
    parser.add_argument("--size", default="720p", help="480p, 720p or WIDTHxHEIGHT")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--layers", type=int)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    args = parser.parse_args()
    if args.steps < MINIMUM_STEPS or args.rounds < 1:
        parser.error(f"--steps must be at least {MINIMUM_STEPS}, which LFCache needs, and --rounds at least 1")
    host = find_host()
    if host is None:
        sys.exit("this benchmark needs a ComfyUI: set COMFYUI_PATH")
    case = case_of(args.model, args.size, args.dtype, args.device, args.layers)
    enter_host(host, is_fused=True, is_cpu=case.device == "cpu")
    logging.disable(logging.INFO)
    torch.set_grad_enabled(False)
    start = time.perf_counter()

    def say(text):
        print(f"[{time.perf_counter() - start:5.0f} s] {text}", file=sys.stderr, flush=True)

    case, patcher = fitted(case)
    lines = [
        *case.notes,
        f"command: python3 run.py bench cost {' '.join(sys.argv[1:])}".rstrip(),
        f"python {platform.python_version()}, torch {torch.__version__}, ComfyUI {comfyui_version(host)}, "
        f"{machine(case)}",
        f"{case.model}, {case.layers} blocks, {patcher.model_size() / GB:.2f} GB of random weights, {case.dtype}, "
        f"latent {'x'.join(map(str, case.latent))}, {MODELS[case.model].branches} branch(es), euler, "
        f"{args.steps} steps",
        "",
    ]
    print("\n".join(lines), flush=True)
    for group in report_lines(case, patcher, args.steps, args.rounds, say):
        print("\n".join(group), flush=True)
        lines += group
        # after every group, because a run at full size takes hours and may be stopped before its end
        (args.out / f"cost_{case.label}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
