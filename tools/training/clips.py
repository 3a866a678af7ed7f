"""Procedural clips: one coloured shape that moves over a textured background."""

import math
from dataclasses import dataclass

import torch

from precisecache_core.tiny.prompts import COLORS, MOTIONS, SUBJECTS

_RGB = torch.tensor(
    [
        [0.90, 0.12, 0.10],
        [0.98, 0.55, 0.08],
        [0.98, 0.90, 0.15],
        [0.12, 0.75, 0.20],
        [0.12, 0.30, 0.95],
        [0.60, 0.15, 0.85],
    ]
)


@dataclass
class Clips:
    """videos: (B, 3, frames, h, w) in [0, 1]; words: (B, 3) indices of subject, color, motion."""

    videos: torch.Tensor
    words: torch.Tensor


def uniform(generator, low, high, *shape):
    return torch.rand(*shape, generator=generator) * (high - low) + low


def distance(subject, x, y):
    """Approximate signed distance of each point, in units of the shape's radius; negative inside."""
    if subject == "circle":
        return torch.hypot(x, y) - 1
    if subject == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.85
    return torch.maximum(x.abs() * 0.866 - y * 0.5, y) - 0.55


def path(motion, u, start, reach):
    """Centre and size factor over normalised time u (F,): (x, y, size), each (F,)."""
    still = torch.zeros_like(u)
    if motion in ("left", "right"):
        travel = reach * (2 * u - 1) * (1 if motion == "right" else -1)
        return travel, start + still, still + 1
    if motion in ("up", "down"):
        travel = reach * (2 * u - 1) * (1 if motion == "down" else -1)
        return start + still, travel, still + 1
    return still + start * 0.5, still - start * 0.5, 0.5 + 0.6 * u


def render(count, frames, height, width, generator):
    """`count` random clips of the given frames and size in pixels, as Clips (float32)."""
    ys = (torch.arange(height) + 0.5) / height * 2 - 1
    xs = (torch.arange(width) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    u = torch.linspace(0, 1, frames)
    pixel = 2 / height
    videos = torch.empty(count, 3, frames, height, width)
    words = torch.stack([torch.randint(len(c), (count,), generator=generator) for c in (SUBJECTS, COLORS, MOTIONS)], 1)
    for i in range(count):
        subject, _, motion = (c[w] for c, w in zip((SUBJECTS, COLORS, MOTIONS), words[i]))
        draw = uniform(generator, 0, 1, 16).tolist()
        tone = uniform(generator, 0.2, 0.6, 1, 1) + uniform(generator, -0.14, 0.14, 3, 2)
        slope = math.tau * draw[0]
        ramp = 0.5 + 0.35 * (x * math.cos(slope) + y * math.sin(slope))
        slant = math.tau * draw[1]
        wave = (x * math.cos(slant) + y * math.sin(slant)) * (9 + 12 * draw[2]) + math.tau * draw[3]
        background = tone[:, :1, None] * ramp + tone[:, 1:, None] * (1 - ramp)
        drift = 3 * (draw[4] - 0.5) * u
        stripes = 0.02 * (wave + drift[:, None, None]).sin()
        scene = background[:, None] + stripes
        cx, cy, size = path(motion, u, 0.6 * (draw[5] - 0.5), 0.3 + 0.2 * draw[6])
        radius = (0.44 + 0.06 * draw[7]) * size
        px = (x - cx[:, None, None]) / radius[:, None, None]
        py = (y - cy[:, None, None]) / radius[:, None, None]
        edge = distance(subject, px, py) * radius[:, None, None] / pixel
        cover = (0.5 - edge).clamp(0, 1)
        rim = 1 - 0.35 * (1 - (edge * pixel / 0.035).abs()).clamp(0, 1)
        light = (0.92 - 0.18 * px - 0.18 * py).clamp(0.6, 1.2) * rim
        shape = _RGB[words[i, 1]][:, None, None, None] * light
        videos[i] = scene + cover * (shape - scene)
    return Clips(videos.clamp_(0, 1), words)
