"""The plot of a report: LFD, threshold and decisions over the calls of each run."""

import logging

import numpy as np

logger = logging.getLogger("precisecache")
WIDTH, HEIGHT = 1024, 420  # pixels of one run's panel


def plot_runs(runs):
    """Report entries as one picture, (H, W, 3) uint8, a panel a run.

    Needs matplotlib; without it the picture says so. Colours from Okabe and Ito's
    palette, which colour-blind readers can tell apart.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        text = "no plot: matplotlib is not installed (pip install matplotlib)"
        logger.warning("PreciseCache: %s", text)
        return _written(text)
    count = max(1, len(runs))
    figure = Figure(figsize=(WIDTH / 100, HEIGHT * count / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(count, 1, squeeze=False)[:, 0]
    if not runs:
        panels[0].set_axis_off()
        panels[0].text(0.5, 0.5, "No run of this model was recorded.", ha="center", va="center", fontsize=14)
    for panel, run in zip(panels, runs):
        _draw(panel, run)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _written(text):
    """A white picture with a line of text, where Pillow is there to write it."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return picture
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((40, HEIGHT // 2), text, fill="black")
    return np.array(image)


def _draw(panel, run):
    calls = np.arange(1, run["calls"] + 1)
    lfd = np.array([np.nan if v is None else v for v in run["lfd"]], dtype=float)
    reused = np.array([d == "R" for d in run["decisions"]], dtype=bool)
    blocks = run["blockcache"]
    skipped = f", {blocks['block_calls_skipped']} of {blocks['block_calls']} blocks skipped" if blocks else ""
    panel.set_title(f"{run['model']}: {run['computed']} of {run['calls']} calls computed, {run['reused']} reused"
                    + skipped)
    panel.set_xlabel("model call")
    panel.set_ylabel("low-frequency difference")
    panel.set_xlim(0, max(1, run["calls"]) + 1)
    for kind, is_shown, color, label in (("C", ~reused, "#0072B2", "computed"), ("R", reused, "#E69F00", "reused")):
        panel.bar(calls[is_shown], np.full(is_shown.sum(), 0.06), width=0.8, color=color, label=label,
                  transform=panel.get_xaxis_transform())
    if np.isfinite(lfd).any():
        tried = np.isfinite(lfd)
        panel.plot(calls[tried], lfd[tried], color="black", marker="o", markersize=3, linewidth=1, label="LFD")
        panel.set_ylim(bottom=-0.1 * np.nanmax(lfd))
    if run["threshold"] is not None:
        panel.axhline(run["threshold"], color="#D55E00", linestyle="--", label="threshold")
        error = accumulated(run["lfd"], run["decisions"])
        panel.plot(calls, error, color="#009E73", linewidth=1, label="accumulated LFD")
    panel.legend(loc="upper right", ncols=5, fontsize=9)


def accumulated(lfd, decisions):
    """LFD accumulated since the last computed call, as it stood after each call.

    A call without a trial counts as if the LFD had grown evenly between the trials around it.
    """
    total, out = 0.0, []
    for value, decision in zip(between_trials(lfd, decisions), decisions):
        total = total + value if decision == "R" else 0.0
        out.append(total)
    return np.array(out)


def between_trials(lfd, decisions):
    """The LFDs, with the missing ones of reused calls put evenly between their neighbours.

    A computed call is where the next LFD is measured from: 0 to the calls after it.
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
