"""The font of texts in pictures."""

from typing import Any

# tried in this order for letters that Pillow's own font lacks; systems install them
FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "DejaVuSans.ttf", "arial.ttf")


def font(text: str, size: int) -> Any:
    """The first of FONTS that this machine has; Pillow's own for ASCII text, or where there is none."""
    from PIL import ImageFont

    for name in () if text.isascii() else FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()
