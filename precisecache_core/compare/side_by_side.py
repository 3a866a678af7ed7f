"""Videos side by side, each under its caption."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..lettering import font

SMALLEST, LARGEST = 256, 640  # pixels of a video's longer side; smaller videos are enlarged, larger ones shrunk
GAP, CAPTION_HEIGHT, FONT_SIZE = 8, 44, 14  # pixels for a video shown 256 wide; a wider one gets more in proportion


def side_by_side(videos: Sequence[torch.Tensor], captions: Sequence[str]) -> torch.Tensor:
    """Join videos into one on white, (frames, H, W, 3), float32 in [0, 1].

    videos: tensors (frames, height, width, 3), float in [0, 1], equal shapes.
    captions: a text of at most two lines for each video.
    Needs Pillow.
    """
    height, width = _panel_size(*videos[0].shape[1:3])
    scale = max(1.0, width / SMALLEST)
    gap, strip = round(GAP * scale), round(CAPTION_HEIGHT * scale)
    result = torch.ones(len(videos[0]), height + strip + gap, len(videos) * (width + gap) + gap, 3)
    for i, (video, caption) in enumerate(zip(videos, captions)):
        columns = slice(gap + i * (width + gap), (i + 1) * (width + gap))
        result[:, :strip, columns] = _caption(caption, strip, width, round(FONT_SIZE * scale))
        for frame, target in zip(video, result[:, strip : strip + height, columns]):
            target.copy_(_resized(frame, height, width))
    return result


def _panel_size(height: int, width: int) -> tuple[int, int]:
    longer = max(height, width)
    if longer < SMALLEST:
        factor = math.ceil(SMALLEST / longer)
        return height * factor, width * factor
    share = min(1, LARGEST / longer)
    return max(1, round(height * share)), max(1, round(width * share))


def _resized(frame: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A frame, (h, w, 3), at another size: enlarged by a whole factor, or shrunk by averaging."""
    if frame.shape[:2] == (height, width):
        return frame
    mode = "area" if height < frame.shape[0] else "nearest"
    return F.interpolate(frame.float().movedim(-1, 0)[None], (height, width), mode=mode)[0].movedim(0, -1)


def _caption(text: str, height: int, width: int, font_size: int) -> torch.Tensor:
    """A text in black on white, (height, width, 3), float32 in [0, 1]."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(strip).multiline_text((0, height // 11), text, fill="black", font=font(text, font_size))
    return torch.from_numpy(np.array(strip)).float() / 255
