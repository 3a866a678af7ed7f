"""Videos in a grid, each under its caption."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..lettering import font

# pixels of a video's longer side: smaller videos are enlarged, larger ones shrunk, so that a row is at most WIDEST
SMALLEST, LARGEST, WIDEST = 256, 640, 1920
GAP, CAPTION_HEIGHT, FONT_SIZE = 8, 44, 14  # pixels for a video shown 256 wide; a wider one gets more in proportion
LINES = 2  # of a caption of CAPTION_HEIGHT; longer ones get more, shorter ones not less

Video = torch.Tensor | Sequence[torch.Tensor]


def side_by_side(videos: Sequence[Video | None], captions: Sequence[str], columns: int | None = None) -> torch.Tensor:
    """Join videos into one on white, (frames, H, W, 3), float32 in [0, 1].

    videos: tensors (frames, height, width, 3), or sequences of such frames, float in [0, 1], equal shapes; row by row.
        None leaves a place empty; the first must be a video.
    captions: a text for each video; each row is as high as its longest caption needs.
    columns: number of videos in a row; by default all of them.
    Needs Pillow.
    """
    columns = columns or len(videos)
    assert videos[0] is not None, "the first place is never empty"
    height, width = _panel_size(videos[0][0].shape, columns)
    scale = max(1.0, width / SMALLEST)
    gap = round(GAP * scale)
    rows = [range(start, min(start + columns, len(videos))) for start in range(0, len(videos), columns)]
    lines = [max(LINES, *(1 + captions[i].count("\n") for i in row)) for row in rows]
    strips = [round(CAPTION_HEIGHT * scale * count / LINES) for count in lines]
    size = sum(strips) + len(rows) * (height + gap), columns * (width + gap) + gap
    result = torch.ones(len(videos[0]), *size, 3)
    top = 0
    for row, strip in zip(rows, strips):
        for column, i in enumerate(row):
            place = result[:, top : top + strip + height, gap + column * (width + gap) : (column + 1) * (width + gap)]
            place[:, :strip] = _caption(captions[i], strip, width, round(FONT_SIZE * scale))
            video = videos[i]
            for frame, target in zip(() if video is None else video, place[:, strip:]):
                target.copy_(_resized(frame, height, width))
        top += strip + height + gap
    return result


def _panel_size(shape: Sequence[int], columns: int) -> tuple[int, int]:
    height, width = shape[:2]
    longer = max(height, width)
    if longer < SMALLEST:
        factor = math.ceil(SMALLEST / longer)
        return height * factor, width * factor
    share = min(1, max(SMALLEST, min(LARGEST, WIDEST // columns)) / longer)
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
    ImageDraw.Draw(strip).multiline_text((0, font_size * 2 // 7), text, fill="black", font=font(text, font_size))
    return torch.from_numpy(np.array(strip)).float() / 255
