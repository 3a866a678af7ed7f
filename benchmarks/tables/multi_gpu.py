"""What several GPUs compute, keep and exchange with the caches: `python3 run.py bench multi_gpu`.

Computed for ranks of one sequence-parallel group, split as Raylight splits (see `benchmarks.sequence_parallel`): MACs
by torch's counter and the sizes of the blocks, memory with BlockCache's own code on fake tensors, bytes from shapes.
The caches' exchanges are counted in runs of the bundled tiny model. With several GPUs in the machine a stack of
Wan2.1-14B's blocks is timed too, with and without the exchanges; on others nothing is measured, and the table says so.
"""

import argparse
import logging
import sys
from math import ceil
from pathlib import Path

import torch

from benchmarks.group_course import Twins, counted_course
from benchmarks.options import RESULTS
from benchmarks.rank_timing import EXCHANGES_PER_CALL, Size, timing_lines
from benchmarks.schedules import PUBLISHED, STEPS
from benchmarks.sequence_parallel import (
    course_of,
    course_with,
    forward_of,
    image_tokens,
    run_of,
    trial_latent,
)
from benchmarks.study import host_version, write_table
from benchmarks.tables.memory import SIZES, WEIGHTS, bytes_held
from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.group import MESSAGE_BYTES
from testkit.full_size import MODELS
from testkit.tiny_host import enter_host, find_host
from tools.machine import describe_machine, head

RANKS = (1, 2, 4, 8)
SETTINGS = ("none", "base", "turbo", "flash")
CACHES = SETTINGS[1:]
CASES = (("wan14b", SIZES["720p"]), ("wan14b", SIZES["1080p"]), ("hunyuan", (640, 480)))
GB, T, P = 1e9, 1e12, 1e15
LATENT_WIDTH = 4  # bytes: the host samples in float32
# 15 blocks in five ranges, the most scattered set that results/memory.txt saw on a model, and its worst case
SETS = {"5 ranges": {i + j for i in range(0, 40, 8) for j in range(3)}, "16 ranges": set(range(1, 32, 2))}
STORAGES = ("merged", "per_block")

# the paper's Table 2: seconds without and with PreciseCache-turbo, on A800 GPUs
TABLE_2 = {
    "wan14b": {1: (3326, 1330), 2: (1732, 753), 4: (907, 416), 8: (459, 229)},
    "hunyuan": {1: (982, 470), 2: (566, 275), 4: (329, 161), 8: (175, 88)},
}
A800_PEAK = 312  # TFLOP/s, dense, by NVIDIA's data sheet


def title(name, size):
    spec = MODELS[name]
    return (
        f"{name} {'x'.join(map(str, size))}, {spec.frames} frames, {spec.branches} branch{'es' * (spec.branches > 1)}"
    )


def mac_lines(name, size):
    """MACs of a rank: of a call, of a trial, and of runs of 50 steps."""
    spec = MODELS[name]
    latent, trial = spec.latent(size), trial_latent(name, spec.latent(size))
    courses = {setting: course_of(setting, spec.blocks) for setting in SETTINGS}
    whole = forward_of(name, latent, 1).macs
    yield f"COMPUTED MACs of one rank: {title(name, size)}, {image_tokens(latent)} tokens; trial {image_tokens(trial)}"
    names = f"{' '.join(f'{s:>7}' for s in SETTINGS)}   {' '.join(f'{s:>7}' for s in CACHES)}"
    yield (
        f"{'':5} {'tokens':>7} {'TMACs':>8} {'of 1':>7} {'in at-':>7} {'not':>6} {'TMACs':>8} {'of a':>6}   "
        f"{f'PMACs of {STEPS} steps':>31}   {'no cache over this':>23}"
    )
    yield (
        f"{'ranks':>5} {'a rank':>7} {'a call':>8} {'rank':>7} {'tention':>7} {'split':>6} {'a trial':>8} {'call':>6}"
        f"   {names}"
    )
    for ranks in RANKS:
        call, tried = (forward_of(name, x, ranks) for x in (latent, trial))
        macs = {setting: run_of(name, latent, ranks, course).macs for setting, course in courses.items()}
        none = macs["none"]
        yield (
            f"{ranks:5} {call.tokens:7} {call.macs / T:8.1f} {call.macs / whole:7.2%} "
            f"{call.attention / call.macs:7.1%} {call.whole / call.macs:6.2%} "
            f"{tried.macs / T:8.2f} {tried.macs / call.macs:6.2%}   "
            f"{' '.join(f'{macs[s] / P:7.2f}' for s in SETTINGS)}   "
            f"{' '.join(f'{none / macs[s]:7.2f}' for s in CACHES)}"
        )
    yield "; ".join(
        f"{s}: {c.computed} calls, {c.trials} trials"
        + (f", {c.skipped} of {c.computed * spec.blocks} block calls skipped" if c.skipped else "")
        for s, c in courses.items()
    )


def kept_bytes(name, size, latents):
    """Bytes of LFCache's predictions, and of the rehearsal until the plan is made; the same on every rank.

    latents: how many latents it keeps.
    """
    latent = MODELS[name].latent(size)
    kept, rehearsed = (torch.Size(x).numel() * LATENT_WIDTH for x in (latent, trial_latent(name, latent)))
    return latents * kept, STEPS * rehearsed


def memory_lines(name, size, latents):
    """GB that the caches and the weights take on each GPU."""
    tokens = image_tokens(MODELS[name].latent(size))
    predictions, rehearsal = kept_bytes(name, size, latents)
    yield (
        f"COMPUTED GB on each GPU: {title(name, size)}; not in the table: LFCache's predictions, "
        f"{predictions / GB:.2f} on every rank\n({latents:g} latents in float32), and until the plan is made "
        f"{rehearsal / GB:.2f} more"
    )
    groups = ("BlockCache, peak", "with weights", "with weights under FSDP")
    yield " " * 16 + "".join(f"   {group:>23}" for group in groups)
    yield f"{'skipped':>10} {'ranks':>5}" + len(groups) * f"   {' '.join(f'{s:>11}' for s in STORAGES)}"
    for which, skipped in SETS.items():
        for ranks in RANKS:
            shard = ceil(tokens / ranks)
            peaks = [bytes_held(shard, BlockCacheConfig(storage=s), skipped)[0] / GB for s in STORAGES]
            columns = [[peak + more for peak in peaks] for more in (0, WEIGHTS, WEIGHTS / ranks)]
            cells = "".join(f"   {' '.join(f'{value:11.1f}' for value in column)}" for column in columns)
            yield f"{which:>10} {ranks:5}{cells}"


def sent_lines(name, size):
    """Bytes that the model's own sequence parallelism sends from each rank."""
    spec = MODELS[name]
    latent = spec.latent(size)
    yield f"COMPUTED GB that leave a rank for the model's own sequence parallelism: {title(name, size)}"
    yield f"{'ranks':>5} {'a call':>9} {'a trial':>9}   {STEPS} steps:  {' '.join(f'{s:>9}' for s in SETTINGS)}"
    for ranks in RANKS[1:]:
        call, trial = (forward_of(name, x, ranks).sent / GB for x in (latent, trial_latent(name, latent)))
        runs = [run_of(name, latent, ranks, course_of(s, spec.blocks)).sent / GB for s in SETTINGS]
        yield f"{ranks:5} {call:9.2f} {trial:9.2f}   {'':10} {' '.join(f'{value:9.1f}' for value in runs)}"


def exchange_lines(steps=STEPS, **options):
    """The caches' exchanges, counted in runs of the tiny model with a group of two."""
    yield (
        f"COUNTED exchanges of the caches: the tiny model, {steps} steps, a group of 2, both branches in one pass; "
        f"{MESSAGE_BYTES} bytes a rank and exchange"
    )
    yield (
        f"{'':6} {'calls':>6} {'trials':>6} {'passes':>6} {'of them skip':>12} {'exchanges':>9} {'a call':>6} "
        f"{'kB a rank and run':>17}"
    )
    for setting in CACHES:
        found = counted_course(setting, steps, Twins(), **options)
        yield (
            f"{setting:6} {found.steps:6} {found.trials:6} {found.computed:6} {found.skipping:12} {found.exchanges:9} "
            f"{found.exchanges / found.steps:6.2f} {found.exchanges * MESSAGE_BYTES / 1e3:17.1f}"
        )
    name, size, ranks = "wan14b", SIZES["720p"], RANKS[-1]
    own = run_of(name, MODELS[name].latent(size), ranks, course_of(setting, MODELS[name].blocks, steps)).sent
    share = found.exchanges * MESSAGE_BYTES * (ranks - 1) / own
    yield (
        f"{setting} on {ranks} ranks, where a message goes to {ranks - 1}: {share:.1e} of the bytes that {name} itself "
        "sends at 720p (COMPUTED)"
    )


def paper_lines(name, size):
    """The paper's measured Table 2 beside MACs computed here."""
    spec = MODELS[name]
    latent, measured = spec.latent(size), TABLE_2[name]
    none, ours = course_of("none", spec.blocks), course_of("turbo", spec.blocks)
    theirs = course_with(PUBLISHED[name].computed("turbo"), spec.blocks)
    yield f"the paper's Table 2, {name}: MEASURED seconds; beside them COMPUTED MACs of one rank at {title(name, size)}"
    yield (f"{'':4}   {'the paper, MEASURED':^33}   {'COMPUTED: none over this':^25}   {'COMPUTED':>15}".rstrip())
    yield (
        f"{'GPUs':>4}   {'none':>5} {'turbo':>5} {'ratio':>5} {'1 GPU / this':>15}   "
        f"{f'{theirs.computed} calls':>12} {f'{ours.computed} calls':>12}   {'1 GPU / this':>15}"
    )
    one = run_of(name, latent, 1, none).macs
    for ranks in RANKS:
        without, turbo = measured[ranks]
        macs = [run_of(name, latent, ranks, course).macs for course in (none, theirs, ours)]
        yield (
            f"{ranks:4}   {without:5} {turbo:5} {without / turbo:5.2f} {measured[1][0] / without:15.2f}   "
            f"{macs[0] / macs[1]:12.2f} {macs[0] / macs[2]:12.2f}   {one / macs[0]:15.2f}"
        )


def size_lines():
    """What the paper's seconds on one GPU would mean at several sizes."""
    yield f"TFLOP/s that Table 2's seconds on one GPU mean by COMPUTED MACs; an A800's peak in bf16 is {A800_PEAK}"
    for name in TABLE_2:
        cells = []
        for size in ((640, 480), *SIZES.values()):
            macs = STEPS * forward_of(name, MODELS[name].latent(size), 1).macs
            cells.append(f"{'x'.join(map(str, size))} {2 * macs / TABLE_2[name][1][0] / T:.0f}")
        yield f"  {name}, {MODELS[name].frames} frames: {', '.join(cells)}"


def measured_lines(layers, rounds):
    """Seconds of a stack of blocks on the GPUs of this machine, or why there are none."""
    found = torch.cuda.device_count()
    if found < 2:
        yield (
            f"MEASURED: nothing. Timing ranks takes several GPUs; this machine has {found}. On one that has them the "
            "same command times them."
        )
        return
    spec = MODELS["wan14b"]
    size = Size(
        image_tokens(spec.latent("720p")),
        spec.text[0],
        spec.dim,
        spec.sizes["ffn_dim"],
        spec.dim // spec.head_dim,
        spec.branches,
        layers,
    )
    yield (
        f"MEASURED seconds: products and all-to-all of {layers} of wan14b's {spec.blocks} blocks at 720p, nccl, "
        f"medians of {rounds};\nwith and without {EXCHANGES_PER_CALL} exchanges a call, in turns"
    )
    yield from timing_lines([ranks for ranks in RANKS if ranks <= found], size, rounds, MESSAGE_BYTES)


NOTES = (
    "MACs are no seconds. Not in them: what the ranks send each other, reading of weights, norms and the like, and the",
    "caches' own arithmetic, which every rank does on the full latent.",
    "not split: what a rank computes in full whatever the ranks (in Wan mostly cross-attention, to as many copies of",
    "the text as there are ranks; see benchmarks/sequence_parallel.py). A skipped block counts as the mean block.",
    "trials: a plan rehearses every step; on several ranks the tokens of a trial are split and padded as well.",
)
MEMORY_NOTES = (
    "5 ranges: 15 of 40 blocks, the most scattered set that `memory` saw on a model; 16 ranges: no two neighbours.",
    f"Weights: {WEIGHTS:g} GB in bf16, whole on every rank, or 1 / ranks of them under FSDP, which gathers a block's",
    f"when it runs ({WEIGHTS / MODELS['wan14b'].blocks:.1f} GB each, not counted). Activations are not counted.",
)
SENT_NOTES = (
    "Ulysses: queries, keys, values and result of every attention in bf16; shards gathered after the blocks.",
    "Every rank receives as much as it sends.",
)
PAPER_NOTES = (
    "The paper's: PreciseCache-turbo (alpha 0.7) on A800 GPUs with DSP. COMPUTED: with as many computed calls as its",
    "MACs in Table 1 stand for, and with as many as the pack's turbo plans; both with a trial a step.",
    "Table 2 says 1080P. With Table 1's frames both models would have to be faster there than the GPU's peak, and",
    "wan14b's 907 s at 4 GPUs are Table 1's for 720p; so 720p is compared here, though the paper does not say it.",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=MODELS["wan14b"].blocks, help="blocks of the timed stack")
    parser.add_argument("--rounds", type=int, default=4, help="how often it is timed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args()
    host = find_host()
    if host is None:
        sys.exit("this benchmark needs a ComfyUI: set COMFYUI_PATH")
    enter_host(host, is_fused=True)
    logging.disable(logging.INFO)
    torch.set_grad_enabled(False)
    lines = [*head("multi_gpu", host_version(), describe_machine()), ""]
    for case in CASES:
        lines += [*mac_lines(*case), ""]
    lines += [*NOTES, ""]
    kept = counted_course("turbo", STEPS).kept
    for case in CASES[:2]:
        lines += [*memory_lines(*case, kept), ""]
    lines += [*MEMORY_NOTES, ""]
    for case in CASES:
        lines += [*sent_lines(*case), ""]
    lines += [*SENT_NOTES, "", *exchange_lines(), ""]
    for name in TABLE_2:
        lines += [*paper_lines(name, SIZES["720p"]), ""]
    lines += [*size_lines(), *PAPER_NOTES, ""]
    lines += measured_lines(args.layers, args.rounds)
    write_table(args.out / "multi_gpu.txt", lines)


if __name__ == "__main__":
    main()
