"""The plot of a report: LFD, threshold and decisions over the calls of each run."""

import logging
import math
import textwrap
from collections.abc import Sequence

import numpy as np

from .accumulated import accumulated
from .axes import BLACK, Axes, Picture

logger = logging.getLogger("precisecache")
WIDTH, HEIGHT = 1024, 420  # pixels of one run's panel
BLOCKS_HEIGHT = 200  # pixels of the panel of its pivotal blocks
MOST = 8  # runs in one picture; the latest are drawn
LEFT, RIGHT, ABOVE, BELOW = 80, 20, 34, 52  # pixels around a panel's axes; RIGHT without an axis there
NOTE = 22  # pixels of the line about runs that were left out
LETTERS = 110  # of a line of text inside a panel

# Okabe and Ito's colours, which colour-blind readers can tell apart
COMPUTED, REUSED, THRESHOLD, ERROR, CORRECTION = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7"


def plot_runs(runs: Sequence[dict], names: Sequence[str] | None = None) -> np.ndarray:
    """Draw the runs of a report as one picture, (H, W, 3) uint8, 1024 wide.

    Each run has a panel, and a second one for its pivotal blocks where BlockCache chose any.
    names: the title of each run; its model where there are none.
    Needs Pillow, which ComfyUI installs; without it the picture is white.
    """
    shown = [*zip(runs, names or [run["model"] for run in runs])][-MOST:]
    left_out = len(runs) - len(shown)
    heights = [HEIGHT + BLOCKS_HEIGHT * _has_blocks(run) for run, _ in shown] or [HEIGHT]
    top = NOTE if left_out else 0
    try:
        picture = Picture(WIDTH, top + sum(heights))
    except ImportError:
        logger.warning("PreciseCache: no plot: Pillow is not installed (pip install pillow)")
        return np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    if left_out:
        picture.text(WIDTH / 2, top / 2, f"{left_out} earlier runs are in the report only", anchor="mm")
    if not shown:
        picture.text(WIDTH / 2, HEIGHT / 2, "No run of this model was recorded.", anchor="mm")
    for (run, name), height in zip(shown, heights):
        _draw_calls(picture, top, run, name)
        if _has_blocks(run):
            _draw_blocks(picture, top + HEIGHT, run, name)
        top += height
    return picture.finished()


def _has_blocks(run: dict) -> bool:
    return bool(run["blockcache"] and run["blockcache"]["pivotal"])


def title_of(run: dict, name: str) -> str:
    """The title of a run's panel."""
    title = f"{name}: {run['computed']} of {run['calls']} calls computed, {run['reused']} reused"
    plan = run.get("plan")
    return f"{title} (plan {plan['budget']} of {plan['steps']} steps)" if plan else title


def lines_of(run: dict) -> list[tuple[str, str, list[float]]]:
    """The lines of a run's panel: (label, colour, value of each call, NaN where there is none)."""
    lines = []
    lfd = [math.nan if value is None else value for value in run["lfd"]]
    if any(map(math.isfinite, lfd)):
        label = "LFD" if run["trials"] else "LFD, extrapolated"
        lines.append(("LFD, rehearsed" if run.get("plan") else label, BLACK, lfd))
    if run["threshold"] is not None:
        lines.append(("accumulated LFD", ERROR, accumulated(run["lfd"], run["decisions"]).tolist()))
        lines.append(("threshold", THRESHOLD, [run["threshold"]] * run["calls"]))
    return lines


def _draw_calls(picture: Picture, top: int, run: dict, name: str) -> None:
    corrections = [(i + 1, value) for i, value in enumerate(run.get("corrections") or []) if value is not None]
    right = WIDTH - (LEFT if corrections else RIGHT)
    area = (LEFT, top + ABOVE, right, top + HEIGHT - BELOW)
    picture.text((LEFT + right) / 2, top + ABOVE / 2, title_of(run, name), size=15, anchor="mm")
    lines = lines_of(run)
    highest = max((value for *_, values in lines for value in values if math.isfinite(value)), default=0.0)
    # room for the bars below and the legend above
    axes = Axes(picture, area, (0, max(1, run["calls"]) + 1), (-0.1, 1.25) if highest <= 0 else _room(highest))
    marks = _draw_decisions(axes, run["decisions"])
    for label, color, values in lines:
        found = [(i + 1, value) for i, value in enumerate(values) if math.isfinite(value)]
        if label == "threshold":
            picture.dashed(area[0], area[2], axes.at(0, values[0] if values else run["threshold"])[1], color)
        elif found:
            axes.line(found, color)
            if label.startswith("LFD") and run["trials"]:
                axes.dots(found, color)
        marks.append((label, color))
    axes.frame()
    axes.ticks_below("model call")
    if lines and highest > 0:
        axes.ticks_beside("low-frequency difference")
    if corrections:
        _draw_corrections(picture, area, axes.x, corrections)
        marks.append(("corrected", CORRECTION))
    _draw_legend(picture, area, marks)
    if run["calls"] and not run["reused"] and run["warnings"]:
        for number, text in enumerate(textwrap.wrap(run["warnings"][-1], LETTERS)):
            picture.text((area[0] + area[2]) / 2, (area[1] + area[3]) / 2 + 20 * number, text, anchor="mm")


def _room(highest: float) -> tuple[float, float]:
    return -0.1 * highest, 1.25 * highest


def _draw_decisions(axes: Axes, decisions: str) -> list[tuple[str, str]]:
    """A bar at the bottom for each call; returns what their colours mean."""
    marks = {"C": ("computed", COMPUTED), "R": ("reused", REUSED)}
    bottom = axes.area[3]
    for i, decision in enumerate(decisions):
        x0, x1 = axes.at(i + 0.6, 0)[0], axes.at(i + 1.4, 0)[0]
        axes.picture.box(x0, bottom - 0.06 * (bottom - axes.area[1]), x1, bottom, marks[decision][1])
    return [mark for letter, mark in marks.items() if letter in decisions]


def _draw_corrections(
    picture: Picture, area: tuple[float, float, float, float], x: tuple[float, float], found: list[tuple[int, float]]
) -> None:
    """How far x was displaced at the computed calls, on an axis of its own at the right."""
    axes = Axes(picture, area, x, _room(max(value for _, value in found) or 1.0))
    for call, value in found:
        axes.line([(call, 0), (call, value)], CORRECTION)
    axes.dots(found, CORRECTION, radius=5, corners=4)
    axes.ticks_beside("displacement taken back (RMS)", CORRECTION, is_right=True)


def _draw_legend(picture: Picture, area: tuple[float, float, float, float], marks: Sequence[tuple[str, str]]) -> None:
    """What the colours mean, in one line at the upper right."""
    x = area[2] - 8
    for label, color in reversed(marks):
        x -= picture.width_of(label)
        picture.text(x, area[1] + 14, label)
        x -= 22
        picture.box(x, area[1] + 11, x + 16, area[1] + 17, color)
        x -= 14


def _draw_blocks(picture: Picture, top: int, run: dict, name: str) -> None:
    """Draw which blocks are computed between one refresh and the next; the others are skipped."""
    blocks = run["blockcache"]
    counts = f"{blocks['block_calls_skipped']} of {blocks['block_calls']} block calls skipped"
    picture.text(WIDTH / 2, top + ABOVE / 2, f"{name}: {counts}", anchor="mm")
    rows = len(blocks["pivotal"])
    area = (LEFT, top + ABOVE, WIDTH - RIGHT, top + BLOCKS_HEIGHT - BELOW)
    axes = Axes(picture, area, (-0.5, blocks["blocks"] - 0.5), (rows + 0.5, 0.5))
    for row, pivotal in enumerate(blocks["pivotal"]):
        for block in range(blocks["blocks"]):
            (x0, y0), (x1, y1) = axes.at(block - 0.5, row + 1.5), axes.at(block + 0.5, row + 0.5)
            picture.box(round(x0), round(y0), round(x1) - 1, round(y1) - 1, COMPUTED if block in pivotal else REUSED)
    axes.ticks_below("transformer block (blue: pivotal, computed; orange: skipped)")
    axes.ticks_beside("refresh", is_whole=True)
