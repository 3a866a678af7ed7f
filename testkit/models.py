"""The trained models that benchmarks can measure on: their files, and the prompt that a seed stands for."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from precisecache_core.tiny import bundle
from precisecache_core.tiny.prompts import COLORS, SUBJECTS, WORDS
from testkit.pack import ROOT


@dataclass(frozen=True)
class TrainedModel:
    """One model.

    folder: of its two files, as `tools.training.train --export` writes them. words: {what a token of a prompt says:
        its words}. first: the prompt until another is asked for. choose(seed): the number of each token's word, which
        counts on from the first word after the last. shift: the flow shift that it is usually sampled with.
    """

    name: str
    folder: Path
    words: dict[str, tuple[str, ...]]
    first: tuple[str, ...]
    choose: Callable
    shift: float = bundle.SHIFT

    def prompt(self, *numbers):
        """The words with these numbers, one for each token."""
        return tuple(words[n % len(words)] for n, words in zip(numbers, self.words.values(), strict=True))

    def prompt_of(self, seed):
        """The words of the clip of a seed."""
        return self.prompt(*self.choose(seed))


DEFAULT = "shapes"
MODELS = {
    model.name: model
    for model in (
        TrainedModel(
            DEFAULT,
            bundle.FOLDER,
            WORDS,
            ("triangle", "orange", "right"),
            lambda seed: (seed, seed // 2, seed),
        ),
        TrainedModel(
            "deep",
            ROOT / "benchmarks" / "models" / "deep",
            {
                "left shape": SUBJECTS,
                "left color": COLORS,
                "right shape": SUBJECTS,
                "right color": COLORS,
                "camera": ("still", "left", "right", "in", "turn"),
            },
            ("circle", "red", "square", "blue", "right"),
            # the two colors are never the same
            lambda seed: (seed, seed // 2, seed // 3 + 1, 2 - seed, seed),
        ),
    )
}


def trained_model(name):
    """The model of this name; ends the program if its files are missing."""
    model = MODELS[name]
    missing = [file for file in (bundle.MODEL_NAME, bundle.CODEC_NAME) if not (model.folder / file).is_file()]
    if missing:
        sys.exit(
            f"model {name} lacks {' and '.join(missing)} in {model.folder}: "
            f"train it with python -m tools.training.train --kind {name}, then write the files with its --export"
        )
    return model
