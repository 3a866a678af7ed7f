"""Where and how much a video differs from its reference."""

from collections.abc import Sequence

import torch

GAIN = 8  # a cached video usually differs by 0.01 to 0.05; 8 times as much can be seen


class Difference(Sequence):
    """The frames of |video - reference| times GAIN, made when they are asked for.

    reference, video: frames (frames, height, width, 3), float in [0, 1], equal shapes; not written to.
    A frame is (height, width, 3), float32 in [0, 1], and white where a pixel is not finite.
    """

    def __init__(self, reference: torch.Tensor, video: torch.Tensor) -> None:
        self.reference = reference
        self.video = video

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
        change = self.video[index].float() - self.reference[index].float()
        return change.abs_().mul_(GAIN).nan_to_num_(nan=1.0, posinf=1.0).clamp_(max=1.0)
