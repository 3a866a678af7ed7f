"""Videos side by side, each under its caption."""

import math

import torch

PANEL_WIDTH = 256  # a smaller video is enlarged to this, so that its caption fits
GAP, CAPTION_HEIGHT, FONT_SIZE = 8, 44, 14


def side_by_side(videos, captions):
    """One video of several: (frames, H, W, 3), float32 in [0, 1], on white.

    videos: tensors (frames, height, width, 3), float in [0, 1], equal shapes; small ones are
        enlarged by a whole factor. captions: a text of at most two lines for each.
    Needs Pillow.
    """
    frames, height, width = videos[0].shape[:3]
    scale = max(1, math.ceil(PANEL_WIDTH / width))
    height, width = height * scale, width * scale
    size = (height + CAPTION_HEIGHT + GAP, len(videos) * (width + GAP) + GAP)
    heading = _captions(captions, size[1], width)
    result = torch.ones(frames, *size, 3)
    result[:, :CAPTION_HEIGHT] = heading
    for i, video in enumerate(videos):
        left = GAP + i * (width + GAP)
        panel = video.repeat_interleave(scale, 1).repeat_interleave(scale, 2) if scale > 1 else video
        result[:, CAPTION_HEIGHT:CAPTION_HEIGHT + height, left:left + width] = panel
    return result


def _captions(captions, full_width, width):
    """The strip over the videos, (CAPTION_HEIGHT, full_width, 3), float32."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (full_width, CAPTION_HEIGHT), "white")
    font = ImageFont.load_default(FONT_SIZE)
    for i, text in enumerate(captions):
        # each on its own, so that a long one does not run into the next
        panel = Image.new("RGB", (width, CAPTION_HEIGHT), "white")
        ImageDraw.Draw(panel).multiline_text((0, 4), text, fill="black", font=font)
        strip.paste(panel, (GAP + i * (width + GAP), 0))
    return torch.from_numpy(np.array(strip)).float() / 255
