"""The models that can be trained: their sizes, their clips, and the sizes of latents they see."""

from collections.abc import Callable
from dataclasses import dataclass

from precisecache_core.tiny.model import TinyVideoConfig
from precisecache_core.tiny.prompts import COLORS, MOTIONS, SUBJECTS
from tools.training import clips, scenes


@dataclass(frozen=True)
class Kind:
    """config: sizes of the network. words: the vocabulary of each token of the conditioning. render: the clips.

    sizes: (latent frames, latent side, batch, share of the steps in the first and in the second phase). The
    first phase learns shapes mostly from small frames, because training sees most of those per second; the
    second moves to clips of the size that is sampled.
    """

    config: TinyVideoConfig
    words: tuple[tuple[str, ...], ...]
    render: Callable
    sizes: tuple[tuple[int, int, int, float, float], ...]


KINDS = {
    # the bundled model; about 4096 tokens a step
    "shapes": Kind(
        TinyVideoConfig(),
        (SUBJECTS, COLORS, MOTIONS),
        clips.render,
        (
            (1, 16, 64, 0.45, 0.08),
            (2, 16, 32, 0.10, 0.05),
            (4, 16, 16, 0.20, 0.17),
            (8, 16, 8, 0.00, 0.05),
            (1, 32, 16, 0.10, 0.15),
            (2, 32, 8, 0.00, 0.10),
            (4, 32, 4, 0.00, 0.25),
            (2, 8, 96, 0.07, 0.08),
            (4, 8, 64, 0.08, 0.07),
        ),
    ),
    # the benchmarks' second model: deep and thin; about 2048 tokens a step
    "deep": Kind(
        TinyVideoConfig(dim=80, ffn_dim=160, num_heads=2, num_layers=36),
        scenes.WORDS,
        scenes.render,
        (
            (1, 16, 32, 0.38, 0.06),
            (2, 16, 16, 0.12, 0.05),
            (4, 16, 8, 0.20, 0.12),
            (8, 16, 4, 0.05, 0.30),
            (1, 32, 8, 0.08, 0.10),
            (4, 32, 2, 0.00, 0.22),
            (2, 8, 48, 0.07, 0.05),
            (4, 8, 32, 0.10, 0.10),
        ),
    ),
}
