"""What the tiny video model can be asked for, and how the request becomes conditioning."""

import torch

SUBJECTS = ("circle", "square", "triangle")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
MOTIONS = ("left", "right", "up", "down", "grow")
TEXT_DIM = 64
_VOCABULARY = {word: i for i, word in enumerate(("",) + SUBJECTS + COLORS + MOTIONS)}


def encode_prompt(subject="", color="", motion=""):
    """Conditioning of one clip: (1, 3, 64) float32, one one-hot token per word.

    An empty word is the token the model saw when its guidance was dropped, so
    `encode_prompt()` is the unconditional branch.
    Raises ValueError on a word the model was not trained on.
    """
    tokens = torch.zeros(1, 3, TEXT_DIM)
    for position, (name, word, known) in enumerate(
        (("subject", subject, SUBJECTS), ("color", color, COLORS), ("motion", motion, MOTIONS))
    ):
        if word and word not in known:
            raise ValueError(
                f"PreciseCache: {name} must be one of {', '.join(known)}, got {word!r}. "
                "Choose one of these; the tiny model knows no other."
            )
        tokens[0, position, _VOCABULARY[word]] = 1.0
    return tokens
