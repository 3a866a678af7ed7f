"""The plot of a report: LFD, threshold and decisions over the calls of each run."""

import logging
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

logger = logging.getLogger("precisecache")
WIDTH, HEIGHT = 1024, 420  # pixels of one run's panel
BLOCKS_HEIGHT = 200  # pixels of the panel of its pivotal blocks
MOST = 8  # runs in one picture; the latest are drawn

# Okabe and Ito's colours, which colour-blind readers can tell apart
COMPUTED, REUSED, THRESHOLD, ERROR, CORRECTION = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7"


def plot_runs(runs: Sequence[dict], names: Sequence[str] | None = None) -> np.ndarray:
    """Draw the runs of a report as one picture, (H, W, 3) uint8, 1024 wide.

    Each run has a panel, and a second one for its pivotal blocks where BlockCache chose any.
    names: the title of each run; its model where there are none.
    Needs matplotlib; without it the picture says so.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        text = "no plot: matplotlib is not installed (pip install matplotlib)"
        logger.warning("PreciseCache: %s", text)
        return _written(text)
    panels: list[tuple[Callable[[Any, dict, str], None], dict, str, int]] = []  # (draw, run, name, height)
    left_out = len(runs) - MOST
    for run, name in [*zip(runs, names or [run["model"] for run in runs])][-MOST:]:
        panels.append((_draw_calls, run, name, HEIGHT))
        if run["blockcache"] and run["blockcache"]["pivotal"]:
            panels.append((_draw_blocks, run, name, BLOCKS_HEIGHT))
    heights = [height for *_, height in panels] or [HEIGHT]
    figure = Figure(figsize=(WIDTH / 100, sum(heights) / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if not runs:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "No run of this model was recorded.", ha="center", va="center", fontsize=14)
    for axis, (draw, run, name, _) in zip(axes, panels):
        draw(axis, run, name)
    if left_out > 0:
        figure.suptitle(f"{left_out} earlier runs are in the report only", fontsize=10)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _written(text: str) -> np.ndarray:
    """A white picture with a line of text; without Pillow it stays blank."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return picture
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((40, HEIGHT // 2), text, fill="black")
    return np.array(image)


def _draw_calls(panel: Any, run: dict, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    calls = np.arange(1, run["calls"] + 1)
    lfd = np.array([np.nan if v is None else v for v in run["lfd"]], dtype=float)
    reused = np.array([d == "R" for d in run["decisions"]], dtype=bool)
    plan = run.get("plan")
    title = f"{name}: {run['computed']} of {run['calls']} calls computed, {run['reused']} reused"
    panel.set_title(f"{title} (plan {plan['budget']} of {plan['steps']} steps)" if plan else title)
    panel.set_xlabel("model call")
    panel.set_xlim(0, max(1, run["calls"]) + 1)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for is_shown, color, label in ((~reused, COMPUTED, "computed"), (reused, REUSED, "reused")):
        if not is_shown.any():
            continue
        panel.bar(
            calls[is_shown],
            np.full(is_shown.sum(), 0.06),
            width=0.8,
            color=color,
            label=label,
            transform=panel.get_xaxis_transform(),
        )
    shown = [v for v in (*lfd, run["threshold"]) if v is not None and np.isfinite(v)]
    if np.isfinite(lfd).any():
        tried = np.isfinite(lfd)
        label, marker = ("LFD", "o") if run["trials"] else ("LFD, extrapolated", None)
        label = "LFD, rehearsed" if plan else label
        panel.plot(calls[tried], lfd[tried], color="black", marker=marker, markersize=3, linewidth=1, label=label)
    if run["threshold"] is not None:
        panel.axhline(run["threshold"], color=THRESHOLD, linestyle="--", label="threshold")
        error = accumulated(run["lfd"], run["decisions"])
        panel.plot(calls, error, color=ERROR, linewidth=1.5, label="accumulated LFD")
        shown += [*error]
    if shown:
        panel.set_ylabel("low-frequency difference")
    _draw_corrections(panel, calls, run.get("corrections") or [])
    if shown and max(shown) > 0:
        panel.set_ylim(-0.1 * max(shown), 1.25 * max(shown))  # room for the bars below and the legend above
    else:
        panel.set_yticks([])
    if run["calls"] and not run["reused"] and run["warnings"]:
        panel.text(
            0.5,
            0.5,
            "\n".join(textwrap.wrap(run["warnings"][-1], 110)),
            transform=panel.transAxes,
            ha="center",
            va="center",
            fontsize=10,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )
    panel.legend(loc="upper right", ncols=6, columnspacing=1.2, handlelength=1.5, fontsize=9)


def _draw_corrections(panel: Any, calls: np.ndarray, corrections: Sequence[float | None]) -> None:
    """Draw how far x was displaced at the computed calls, on an axis of its own at the right."""
    found = [(call, value) for call, value in zip(calls, corrections) if value is not None]
    if not found:
        return
    axis = panel.twinx()
    axis.vlines([c for c, _ in found], 0, [v for _, v in found], color=CORRECTION, linewidth=2)
    axis.plot(*zip(*found), color=CORRECTION, marker="D", markersize=5, linestyle="none")
    axis.set_ylabel("displacement taken back (RMS)", color=CORRECTION)
    top = max(v for _, v in found) or 1.0
    axis.set_ylim(-0.1 * top, 1.25 * top)
    panel.plot([], [], color=CORRECTION, marker="D", linestyle="none", label="corrected")  # for the legend


def _draw_blocks(panel: Any, run: dict, name: str) -> None:
    """Draw which blocks are computed between one refresh and the next; the others are skipped."""
    from matplotlib.colors import ListedColormap

    blocks = run["blockcache"]
    skipped = np.ones((len(blocks["pivotal"]), blocks["blocks"]))
    for row, pivotal in zip(skipped, blocks["pivotal"]):
        row[pivotal] = 0
    counts = f"{blocks['block_calls_skipped']} of {blocks['block_calls']} block calls skipped"
    panel.set_title(f"{name}: {counts}", fontsize=10)
    panel.pcolormesh(
        np.arange(blocks["blocks"] + 1) - 0.5,
        np.arange(len(skipped) + 1) + 0.5,
        skipped,
        cmap=ListedColormap([COMPUTED, REUSED]),
        vmin=0,
        vmax=1,
        edgecolors="white",
        linewidth=0.5,
    )
    panel.invert_yaxis()
    panel.set_xlabel("transformer block (blue: pivotal, computed; orange: skipped)")
    panel.set_ylabel("refresh")
    rows = len(skipped)
    panel.set_yticks(range(1, rows + 1, max(1, rows // 5)))


def accumulated(lfd: Sequence[float | None], decisions: str) -> np.ndarray:
    """The LFD accumulated since the last computed call, as it stood after each call.

    lfd: the LFD of each call, None where none was measured. decisions: C or R for each call.
    A call without a trial counts as if the LFD had grown evenly between the trials around it.
    """
    total, out = 0.0, []
    for value, decision in zip(between_trials(lfd, decisions), decisions):
        total = total + value if decision == "R" else 0.0
        out.append(total)
    return np.array(out)


def between_trials(lfd: Sequence[float | None], decisions: str) -> list[float]:
    """The LFD of each call; the missing ones of reused calls lie evenly between their neighbours.

    The next LFD is measured from the last computed call, so that call counts as 0 for the calls after it.
    """
    filled, last, missing = [], 0.0, 0
    for value, decision in zip(lfd, decisions):
        if value is None and decision == "R":
            missing += 1
            filled.append(last)
            continue
        value = value or 0.0
        for j in range(missing):
            filled[j - missing] += (value - last) * (j + 1) / (missing + 1)
        filled.append(value)
        last, missing = value if decision == "R" else 0.0, 0
    return filled
