"""Procedural clips of another kind: two coloured shapes on a texture, seen by a camera that moves.

They are what the second model of the benchmarks (`--kind deep`) is trained on, so that no default is tuned on
one kind of clip only.
"""

import math

import torch

from tools.training.clips import _RGB, Clips, distance, uniform

SUBJECTS = ("circle", "square", "triangle")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
CAMERAS = ("still", "left", "right", "in", "turn")
WORDS = (SUBJECTS, COLORS, SUBJECTS, COLORS, CAMERAS)


def camera(kind, u, x, y, speed):
    """World coordinates of every pixel over normalised time u (F,): two tensors (F, h, w)."""
    time = u[:, None, None] - 0.5
    x, y = x[None] + 0 * time, y[None] + 0 * time
    if kind in ("left", "right"):
        return x + (1 if kind == "right" else -1) * 0.8 * speed * time, y
    if kind == "in":
        zoom = 1 - 0.5 * speed * time
        return x * zoom, y * zoom
    if kind == "turn":
        angle = 0.9 * speed * time
        return x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
    return x, y


def texture(x, y, generator):
    """A background (3, F, h, w): a colour ramp with three gratings of random direction, pitch and tint."""
    base = uniform(generator, 0.25, 0.55, 3, 1, 1, 1)
    slope = uniform(generator, -0.12, 0.12, 3, 2)
    scene = base + slope[:, :1, None, None] * x + slope[:, 1:, None, None] * y
    for pitch in (5, 11, 19):
        angle, phase = (uniform(generator, 0, math.tau, 2)).tolist()
        tint = uniform(generator, -0.07, 0.07, 3, 1, 1, 1) * (5 / pitch) ** 0.5
        scene = scene + tint * ((x * math.cos(angle) + y * math.sin(angle)) * pitch + phase).sin()
    return scene


def place(u, side, generator):
    """Centre (F,), (F,) of one shape in world coordinates: a slow arc on its half of the picture."""
    cx, cy, turn, reach = uniform(generator, -1, 1, 4).tolist()
    angle = math.pi * (cy + 0.5 * turn * (u - 0.5))
    return side * 0.38 + 0.12 * cx + 0.14 * reach * angle.cos(), 0.35 * cy + 0.2 * angle.sin()


def render(count, frames, height, width, generator):
    """`count` random clips of the given frames and size in pixels, as Clips (float32); words (B, 5)."""
    ys = (torch.arange(height) + 0.5) / height * 2 - 1
    xs = (torch.arange(width) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    u = torch.linspace(0, 1, frames) if frames > 1 else torch.tensor([0.5])
    videos = torch.empty(count, 3, frames, height, width)
    words = torch.stack([torch.randint(len(w), (count,), generator=generator) for w in WORDS], 1)
    for i in range(count):
        kind = CAMERAS[words[i, 4]]
        wx, wy = camera(kind, u, x, y, uniform(generator, 0.7, 1.2, 1).item())
        scene = texture(wx, wy, generator)
        for word, color, side in ((words[i, 0], words[i, 1], -1), (words[i, 2], words[i, 3], 1)):
            radius = uniform(generator, 0.26, 0.36, 1).item()
            cx, cy = place(u, side, generator)
            px = (wx - cx[:, None, None]) / radius
            py = (wy - cy[:, None, None]) / radius
            edge = distance(SUBJECTS[word], px, py) * radius / (2 / height)
            cover = (0.5 - edge).clamp(0, 1)
            light = (0.9 - 0.2 * px - 0.15 * py).clamp(0.55, 1.2)
            scene = scene + cover * (_RGB[color][:, None, None, None] * light - scene)
        videos[i] = scene
    return Clips(videos.clamp_(0, 1), words)
