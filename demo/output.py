"""What the demo leaves behind: the comparison, the plot, the report, and the table."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from precisecache_core.plot import plot_runs
from precisecache_core.report import build_report, dump_report

from .quality import compare

FRAME_MILLISECONDS = 125
PANEL_WIDTH = 256  # a smaller video is enlarged to this, so that its caption fits
GAP, CAPTION_HEIGHT, FONT_SIZE = 8, 44, 14


def rows_of(results):
    """A dict per variant: what was computed, how long it took, how near it is to the first."""
    reference = results[0]
    rows = []
    for result in results:
        run = result.run
        psnr, ssim = (None, None) if result is reference else compare(reference.frames, result.frames)
        rows.append({"name": result.variant.name, "computed": run["computed"] if run else None,
                     "reused": run["reused"] if run else 0, "blocks": skipped_share(run), "seconds": result.seconds,
                     "ratio": result.seconds / reference.seconds, "psnr": psnr, "ssim": ssim})
    return rows


def skipped_share(run):
    """The share of blocks in the computed calls that BlockCache skipped, or None without BlockCache."""
    blocks = run["blockcache"] if run else None
    return blocks["block_calls_skipped"] / max(1, blocks["block_calls"]) if blocks else None


def decibels(psnr):
    return "equal" if math.isinf(psnr) else f"{psnr:.2f}"


def table(rows, steps):
    """The rows as aligned text."""
    lines = [("", "computed", "reused", "blocks skipped", "seconds", "time ratio", "PSNR dB", "SSIM")]
    for row in rows:
        lines.append((
            row["name"], str(steps if row["computed"] is None else row["computed"]), str(row["reused"]),
            "-" if row["blocks"] is None else f"{row['blocks']:.0%}",
            f"{row['seconds']:.2f}", f"{row['ratio']:.2f}",
            "-" if row["psnr"] is None else decibels(row["psnr"]),
            "-" if row["ssim"] is None else f"{row['ssim']:.4f}"))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(line, widths))).rstrip() for line in lines)


def caption(row, steps):
    """Two lines over a panel."""
    if row["computed"] is None:
        return f"{row['name']}\n{steps} calls, {row['seconds']:.2f} s"
    quality = "" if row["psnr"] is None else f", {decibels(row['psnr'])} dB".replace("equal dB", "equal")
    calls = row["computed"] + row["reused"]
    return f"{row['name']}: {row['computed']} of {calls} calls computed\n{row['seconds']:.2f} s{quality}"


def to_bytes(frames):
    return frames if frames.dtype == np.uint8 else (frames * 255).round().astype(np.uint8)


def write_comparison(path, results, captions):
    """The videos side by side with captions, as an animated WebP."""
    font = ImageFont.load_default(FONT_SIZE)
    height, width = results[0].frames.shape[1:3]
    scale = max(1, math.ceil(PANEL_WIDTH / width))
    width, height = width * scale, height * scale
    videos = [to_bytes(result.frames) for result in results]
    pictures = []
    for frames in zip(*videos):
        picture = Image.new("RGB", (len(videos) * (width + GAP) + GAP, height + CAPTION_HEIGHT + GAP), "white")
        draw = ImageDraw.Draw(picture)
        for i, (frame, text) in enumerate(zip(frames, captions)):
            left = GAP + i * (width + GAP)
            draw.multiline_text((left, 4), text, fill="black", font=font)
            picture.paste(Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST),
                          (left, CAPTION_HEIGHT))
        pictures.append(picture)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0,
                     quality=90, method=4)


def write_results(folder, results, steps):
    """Write comparison.webp, plot.png and report.json; returns the rows of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(results)
    report = build_report([result.run for result in results if result.run])
    write_comparison(folder / "comparison.webp", results, [caption(row, steps) for row in rows])
    Image.fromarray(plot_runs(report["runs"])).save(folder / "plot.png")
    (folder / "report.json").write_text(dump_report(report) + "\n", encoding="utf-8")
    return rows
