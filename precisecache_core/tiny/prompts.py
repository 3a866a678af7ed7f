"""What the tiny video model can be asked for, and how the request becomes conditioning."""

import torch

SUBJECTS = ("circle", "square", "triangle")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
MOTIONS = ("left", "right", "up", "down", "grow")
TEXT_DIM = 64
_VOCABULARY = {word: i for i, word in enumerate(("",) + SUBJECTS + COLORS + MOTIONS)}


def encode_prompt(subject: str = "", color: str = "", motion: str = "") -> torch.Tensor:
    """The conditioning of one clip: (1, 3, 64) float32, a one-hot token for each word.

    An empty word becomes the token that stood for dropped words in training, so
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
