"""How much memory BlockCache's residuals take: `python3 run.py bench memory`.

BlockCache's own code runs on fake tensors, which have a size but no memory, in the shapes of
Wan2.1-14B (40 blocks, dim 5120, bf16, both guidance branches in one batch, 81 frames). Every live
tensor is counted, and what the same passes hold without BlockCache is subtracted. Two sets of
skipped blocks are measured: the most scattered one that BlockCache chose in a tiny model's clips,
stretched to 40 blocks; and the worst case, 16 blocks of which no two are neighbours.
Activations are not counted.
"""

import math

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.options import ModelParser
from benchmarks.study import head, write_table
from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.blockcache.pivotal import ranges_of
from precisecache_core.blockcache.run import REUSE, BlockCacheRun
from testkit.full_size import MODELS
from testkit.live_bytes import LiveBytes
from testkit.tiny_host import open_bench

WAN = MODELS["wan14b"]
BLOCKS, DIM = WAN.blocks, WAN.dim
SIZES = {"720p": WAN.resolutions["720p"], "1080p": (1920, 1088)}
GB = 1e9
WEIGHTS = 28.0  # GB, of the model in bf16


def fixed_run(config, skipped):
    """A BlockCacheRun that always skips the same blocks, because the scores of fake tensors have no value."""
    scores = [0.0 if i in skipped else math.inf for i in range(BLOCKS)]
    return BlockCacheRun(config, read_scores=lambda passes: scores if passes else [])


def bytes_held(tokens, config, skipped):
    """What BlockCache holds, in bytes: (peak on the GPU, steady on the GPU, steady on the host)."""
    found = []
    for rate in (config.cache_rate, 0.0):
        run = fixed_run(
            BlockCacheConfig(rate, storage=config.storage, cache_device=config.cache_device), skipped if rate else set()
        )
        with FakeTensorMode(), LiveBytes() as memory:
            steady = None
            for _ in range(config.warmup + config.reuse_steps + 1):  # up to the second refresh
                run.begin_call()
                current = run.open_pass([("cond", slice(0, 1)), ("uncond", slice(1, 2))])
                state = {"img": torch.empty(2, tokens, DIM, device="cuda", dtype=torch.bfloat16)}
                for i in range(BLOCKS):
                    state = current.run_block(("double_block", i), state, lambda given=state: {"img": given["img"] + 1})
                current.close()
                del state
                if run.mode == REUSE:
                    steady = dict(memory.live)
            found.append((memory.peak["cuda"], (steady or {}).get("cuda", 0), (steady or {}).get("cpu", 0)))
        run.release()
    with_cache, without = found
    return with_cache[0] - without[0], with_cache[1], with_cache[2]


def seen_sets(bench, clips):
    """Yield (set of blocks that BlockCache skips, number of blocks) from clips of a tiny model."""
    model = bench.blockcache(bench.lfcache())
    for seed in range(clips):
        bench.ask_for(seed)
        bench.sample(model, steps=30, noise=bench.noise((1, 16, 4, 16, 16), seed), seed=seed)
        entry = bench.report(model)["blockcache"]
        for pivotal in entry["pivotal"]:
            yield frozenset(range(entry["blocks"])) - set(pivotal), entry["blocks"]


def shares(seen):
    """Ranges over blocks: how many tensors `merged` keeps, over how many `per_block` holds at its peak."""
    return [ranges(skipped) / blocks for skipped, blocks in seen]


def ranges(skipped):
    return len(ranges_of(skipped, ["block"] * BLOCKS))


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--clips", type=int, default=8)
    args = parser.parse_args()
    bench = open_bench(model=args.model)
    seen = [(skipped, n) for skipped, n in seen_sets(bench, args.clips) if len(skipped) == int(0.4 * n)]
    stretched = [{i for i in range(BLOCKS) if i * n // BLOCKS in skipped} for skipped, n in seen]
    sets = {f"as on model {args.model}": max(stretched, key=ranges), "no neighbours": set(range(1, 32, 2))}
    lines = [
        *head("memory", "fake tensors"),
        f"Wan2.1-14B: {BLOCKS} blocks, dim {DIM}, bf16, two branches, 81 frames; {len(stretched)} sets seen, "
        f"in {min(map(ranges, stretched))} to {max(map(ranges, stretched))} ranges",
        f"merged steady / per_block peak on model {args.model}'s own blocks: "
        f"{sum(shares(seen)) / len(seen):.1%} on average, {max(shares(seen)):.1%} at most",
        "",
        f"{'skipped blocks':22} {'':6} {'storage':10} {'kept on':8} {'GPU peak':>9} {'GPU steady':>11} "
        f"{'host steady':>12}  {'GPU peak and weights':>20}  steady / per_block peak",
    ]
    for title, skipped in sets.items():
        for size, (width, height) in SIZES.items():
            _, frames, rows, columns = WAN.latent((width, height))
            tokens = frames * (rows // 2) * (columns // 2)
            literal = None
            for storage in ("per_block", "merged"):
                for device in ("model", "cpu"):
                    config = BlockCacheConfig(storage=storage, cache_device=device)
                    peak, steady, host = bytes_held(tokens, config, skipped)
                    literal = literal or peak
                    lines.append(
                        f"{title:22} {size:6} {storage:10} {device:8} {peak / GB:6.1f} GB "
                        f"{steady / GB:8.1f} GB {host / GB:9.1f} GB  {WEIGHTS + peak / GB:17.1f} GB  "
                        f"{(steady + host) / literal:10.1%}"
                    )
        lines.append(f"{'':22} {len(skipped)} of {BLOCKS} skipped, in {ranges(skipped)} ranges")
    write_table(args.out / "memory.txt", lines)


if __name__ == "__main__":
    main()
