"""Axes of a chart, drawn with Pillow: texts, ticks, lines and boxes in the chart's own coordinates."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..lettering import font

SCALE = 2  # pictures are drawn larger and then shrunk, which smooths their lines
SIZE = 13  # pixels of the letters
BLACK, GREY = "#000000", "#555555"

Point = tuple[float, float]


class Picture:
    """A white picture to draw on; all numbers are pixels of the finished one.

    Needs Pillow.
    """

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
        self._draw: Any = ImageDraw.Draw(self._image)

    def finished(self) -> np.ndarray:
        """The picture, (height, width, 3) uint8."""
        from PIL import Image

        return np.array(self._image.resize((self.width, self.height), Image.Resampling.BOX))

    def text(self, x: float, y: float, text: str, color: str = BLACK, size: int = SIZE, anchor: str = "lm") -> None:
        """A line of text. anchor: as Pillow's, lm for its left end and half its height."""
        letters = font(text, size * SCALE)
        self._draw.text((x * SCALE, y * SCALE), text, fill=color, font=letters, anchor=anchor)

    def width_of(self, text: str) -> float:
        """The width of a line of text."""
        return self._draw.textlength(text, font=font(text, SIZE * SCALE)) / SCALE

    def upright(self, x: float, y: float, text: str, color: str = BLACK) -> None:
        """A line of text that reads from below, with its middle at x, y."""
        from PIL import Image, ImageDraw

        letters = font(text, SIZE * SCALE)
        size = (math.ceil(self._draw.textlength(text, font=letters)) + 2, 2 * SIZE * SCALE)
        strip = Image.new("RGB", size, "white")
        ImageDraw.Draw(strip).text((1, size[1] // 2), text, fill=color, font=letters, anchor="lm")
        strip = strip.rotate(90, expand=True)
        self._image.paste(strip, (round(x * SCALE - strip.width / 2), round(y * SCALE - strip.height / 2)))

    def line(self, points: Sequence[Point], color: str, width: float = 1.5) -> None:
        self._draw.line([(x * SCALE, y * SCALE) for x, y in points], fill=color, width=round(width * SCALE))

    def dashed(self, x0: float, x1: float, y: float, color: str, dash: float = 6, gap: float = 4) -> None:
        """A level line."""
        for start in np.arange(x0, x1, dash + gap):
            self.line([(start, y), (min(start + dash, x1), y)], color)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: str) -> None:
        corners = [round(min(x0, x1) * SCALE), round(min(y0, y1) * SCALE)]
        self._draw.rectangle([*corners, round(max(x0, x1) * SCALE) - 1, round(max(y0, y1) * SCALE) - 1], fill=color)

    def shape(self, x: float, y: float, radius: float, color: str, corners: int) -> None:
        """A regular shape around a point: many corners make a dot, four a diamond."""
        turns = [2 * math.pi * i / corners for i in range(corners)]
        points = [((x + radius * math.sin(a)) * SCALE, (y - radius * math.cos(a)) * SCALE) for a in turns]
        self._draw.polygon(points, fill=color)


class Axes:
    """Axes in a part of a picture.

    area: (left, top, right, bottom) in pixels. x, y: the values at its left and right, and at its bottom and top.
    """

    def __init__(self, picture: Picture, area: tuple[float, float, float, float], x: Point, y: Point) -> None:
        self.picture, self.area, self.x, self.y = picture, area, x, y

    def at(self, x: float, y: float) -> Point:
        """The pixel of a value."""
        left, top, right, bottom = self.area
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def line(self, points: Sequence[Point], color: str) -> None:
        self.picture.line([self.at(x, y) for x, y in points], color)

    def dots(self, points: Sequence[Point], color: str, radius: float = 2.5, corners: int = 16) -> None:
        for x, y in points:
            self.picture.shape(*self.at(x, y), radius, color, corners)

    def frame(self) -> None:
        left, top, right, bottom = self.area
        self.picture.line([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], GREY, 1)

    def ticks_below(self, label: str) -> None:
        """Whole numbers along the lower edge, and what they are."""
        left, _, right, bottom = self.area
        for value in ticks(*self.x, 12, is_whole=True):
            x = self.at(value, 0)[0]
            self.picture.line([(x, bottom), (x, bottom + 4)], GREY, 1)
            self.picture.text(x, bottom + 6, f"{value:g}", anchor="mt")
        self.picture.text((left + right) / 2, bottom + 24, label, anchor="mt")

    def ticks_beside(self, label: str, color: str = BLACK, is_right: bool = False, is_whole: bool = False) -> None:
        """Numbers from zero along the left or right edge, and what they are."""
        left, top, right, bottom = self.area
        edge, out = (right, 1) if is_right else (left, -1)
        for value in ticks(max(0.0, min(self.y)), max(self.y), 5, is_whole):
            y = self.at(0, value)[1]
            self.picture.line([(edge, y), (edge + 4 * out, y)], GREY, 1)
            self.picture.text(edge + 7 * out, y, f"{value:g}", color, anchor="lm" if is_right else "rm")
        self.picture.upright(edge + 58 * out, (top + bottom) / 2, label, color)


def ticks(low: float, high: float, most: int, is_whole: bool = False) -> list[float]:
    """At most about `most` round numbers from low to high: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return []
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    if is_whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
