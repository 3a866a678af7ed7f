"""What one rank of a sequence-parallel group computes, moves and keeps, at full size; computed, not measured.

The split is that of Raylight's USP forwards, with Ulysses over all ranks (`diffusion_models/wan` and `hunyuan_video`,
`xdit_context_parallel.py`; attention by xfuser):

- Split: the tokens of the blocks, padded with zeros to a multiple of the ranks. A product with a block's tokens takes
  1 / ranks, and so does self-attention, whose heads are shared out.
- Not split: all outside of the blocks (embeddings of patches, text and time, HunyuanVideo's text refiner, the last
  layer). In Wan's blocks the keys and values of the text, too. Their text is not sharded, but goes through the same
  all-to-all, so that every rank attends to `ranks` copies of it with 1 / ranks of the heads: cross-attention costs a
  rank what it costs one GPU. In HunyuanVideo's refiner both sides are copied: there it costs `ranks` times as much.
- HunyuanVideo's text is sharded beside the image, and the two are sharded anew as one before the single blocks. Its
  modulation takes one vector, in full on every rank.

Ring attention, CFG parallelism and what FSDP moves are left out. `tests/benchmarks/test_multi_gpu_raylight.py` compares
all of it with Raylight's own forwards, counted on the meta device.
"""

from dataclasses import dataclass
from math import ceil

from benchmarks.counts import counted, small_latent
from benchmarks.schedules import STEPS, spread, tally
from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.lfcache.config import LFCacheConfig
from testkit.full_size import MODELS

WIDTH = 2  # bytes of one number: bf16
REFINER_BLOCKS = 2  # of HunyuanVideo's text refiner


@dataclass(frozen=True)
class Block:
    """One block on one rank and one row of the batch.

    tokens: of this rank, with padding. split: MACs that shrink with the ranks; whole: MACs that do not.
    attention: the part of both that attention takes. sent: numbers that leave the rank.
    """

    tokens: int
    split: float
    whole: float
    attention: float
    sent: float


def image_tokens(latent):
    """Tokens of a latent (C, T, H, W) with patches of 1 x 2 x 2."""
    _, frames, rows, columns = latent
    return frames * ceil(rows / 2) * ceil(columns / 2)


def wan_block(spec, image, ranks):
    """A Block of Wan2.1. image: tokens of the whole video."""
    dim, ffn, text = spec.dim, spec.sizes["ffn_dim"], spec.text[0]
    shard = ceil(image / ranks)
    # queries of all padded tokens, over copies of the text, with 1 / ranks of the width
    cross = 2 * (shard * ranks) * (text * ranks) * dim / ranks
    attention = 2 * (shard * ranks) ** 2 * dim / ranks
    split = shard * (6 * dim**2 + 2 * dim * ffn) + attention
    exchanged = (4 * shard + 2 * shard + 2 * text) * dim  # q, k, v and the result; of cross-attention too
    return Block(shard, split, 2 * text * dim**2 + cross, attention + cross, exchanged * (ranks - 1) / ranks)


def hunyuan_block(spec, shard, ranks, modulations):
    """A Block of HunyuanVideo. shard: tokens of this rank, text and image. modulations: of one vector, in widths."""
    dim = spec.dim
    attention = 2 * (shard * ranks) ** 2 * dim / ranks
    return Block(
        shard,
        12 * shard * dim**2 + attention,
        modulations * dim**2,
        attention,
        4 * shard * dim * (ranks - 1) / ranks,
    )


def blocks_of(name, image, ranks):
    """[(how many, Block)] of a model; image: tokens of the whole video."""
    spec = MODELS[name]
    if name != "hunyuan":
        return [(spec.blocks, wan_block(spec, image, ranks))]
    text = spec.text[0]
    double = hunyuan_block(spec, ceil(image / ranks) + ceil(text / ranks), ranks, 12)
    single = hunyuan_block(spec, ceil((image + text) / ranks), ranks, 3)
    return [(spec.sizes["depth"], double), (spec.sizes["depth_single_blocks"], single)]


@dataclass(frozen=True)
class Forward:
    """One forward of the network on one rank, all rows of the batch.

    tokens: of the video on this rank, with padding. macs: all of them; attention: in attention; whole: those that do
    not shrink with the ranks. sent: bytes that leave the rank. block, block_sent: MACs and bytes of the mean block.
    """

    tokens: int
    macs: float
    attention: float
    whole: float
    sent: float
    block: float
    block_sent: float


def forward_of(name, latent, ranks, rows=None):
    """The Forward of one rank. latent: (C, T, H, W) of the whole video; rows: by default the model's branches."""
    spec = MODELS[name]
    rows = rows or spec.branches
    image = image_tokens(latent)
    kinds = blocks_of(name, image, ranks)
    inside = rows * sum(n * (block.split + block.whole) for n, block in kinds)
    sent_inside = rows * WIDTH * sum(n * block.sent for n, block in kinds)
    outside = counted(name, latent, rows, layers=0)
    # the refiner attends to `ranks` copies of its text
    refined = outside.attention * ranks
    outside_macs = outside.macs - outside.attention + refined
    # the shards are gathered on every rank: after the blocks, with HunyuanVideo after the double ones too
    gathered = sum(block.tokens for _, block in kinds) * spec.dim * (ranks - 1)
    if name == "hunyuan":
        gathered += REFINER_BLOCKS * 4 * spec.text[0] * spec.dim * (ranks - 1) / ranks
    return Forward(
        ceil(image / ranks),
        inside + outside_macs,
        rows * sum(n * block.attention for n, block in kinds) + refined,
        rows * sum(n * block.whole for n, block in kinds) + outside_macs,
        sent_inside + rows * WIDTH * gathered,
        inside / spec.blocks,
        sent_inside / spec.blocks,
    )


@dataclass(frozen=True)
class Course:
    """What a run of some steps does: computed calls, trials, and skipped block calls."""

    computed: int
    trials: int
    skipped: int


def course_of(setting, blocks, steps=STEPS):
    """The Course of `none`, `base`, `turbo` or `flash` by the pack's own presets.

    A plan rehearses the whole schedule: one trial a step. What BlockCache skips, its own code says.
    """
    if setting == "none":
        return Course(steps, 0, 0)
    return course_with(LFCacheConfig.from_preset(setting).budget(steps), blocks, setting == "flash", steps)


def course_with(computed, blocks, skips_blocks=False, steps=STEPS):
    """The Course with this many computed calls and a trial for every step."""
    run = tally(spread(steps, computed), blocks, BlockCacheConfig(cache_rate=0.4) if skips_blocks else None)
    return Course(run.decisions.count("C"), run.trials, run.skipped)


@dataclass(frozen=True)
class Run:
    """A whole run on one rank: MACs, and bytes that the model's own sequence parallelism sends from it."""

    macs: float
    sent: float


def trial_latent(name, latent):
    """(C, T, H, W) of a trial's latent at the presets' factors."""
    config = LFCacheConfig()
    return small_latent(name, latent, config.factor_t, config.factor_hw)


def run_of(name, latent, ranks, course):
    """The Run of a Course. A skipped block counts as the mean block."""
    call = forward_of(name, latent, ranks)
    trial = forward_of(name, trial_latent(name, latent), ranks)
    return Run(
        course.computed * call.macs + course.trials * trial.macs - course.skipped * call.block,
        course.computed * call.sent + course.trials * trial.sent - course.skipped * call.block_sent,
    )
