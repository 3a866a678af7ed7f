"""What the tiny video model can be asked for, and how the request becomes conditioning."""

from collections.abc import Mapping, Sequence

import torch

SUBJECTS = ("circle", "square", "triangle")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
MOTIONS = ("left", "right", "up", "down", "grow")
WORDS = {"subject": SUBJECTS, "color": COLORS, "motion": MOTIONS}
TEXT_DIM = 64


def encode_words(chosen: Sequence[str], words: Mapping[str, Sequence[str]]) -> torch.Tensor:
    """The conditioning of a prompt: (1, tokens, 64) float32, a one-hot token for each chosen word.

    words: {what a token says: its words}, in the order of `chosen`. All words are numbered through from 1; 0 is
        what stood for dropped words in training, and what an empty word becomes.
    Raises ValueError on a word that is not among its token's.
    """
    tokens = torch.zeros(1, len(words), TEXT_DIM)
    start = 1
    for position, (word, (name, known)) in enumerate(zip(chosen, words.items(), strict=True)):
        if word and word not in known:
            raise ValueError(
                f"PreciseCache: {name} must be one of {', '.join(known)}, got {word!r}. "
                "Choose one of these; the tiny model knows no other."
            )
        tokens[0, position, start + known.index(word) if word else 0] = 1.0
        start += len(known)
    return tokens


def encode_prompt(subject: str = "", color: str = "", motion: str = "") -> torch.Tensor:
    """The bundled model's conditioning of one clip: (1, 3, 64) float32, see `encode_words`.

    `encode_prompt()` is the unconditional branch.
    Raises ValueError on a word the model was not trained on.
    """
    return encode_words((subject, color, motion), WORDS)
