"""The demo's results: the comparison, the plot, the report and the table."""

from PIL import Image

from precisecache_core.compare.quality import compare_videos, psnr_text
from precisecache_core.compare.side_by_side import side_by_side
from precisecache_core.record.plot import plot_runs
from precisecache_core.record.report import build_report, dump_report

FRAME_MILLISECONDS = 125


def rows_of(results):
    """A dict per variant: what was computed, how long it took, and how close it is to the first variant."""
    reference = results[0]
    rows = []
    for result in results:
        run = result.run
        psnr, ssim = (None, None) if result is reference else compare_videos(reference.video, result.video)
        rows.append(
            {
                "name": result.variant.name,
                "computed": run["computed"] if run else None,
                "reused": run["reused"] if run else 0,
                "blocks": skipped_share(run),
                "seconds": result.seconds,
                "ratio": result.seconds / reference.seconds,
                "psnr": psnr,
                "ssim": ssim,
            }
        )
    return rows


def skipped_share(run):
    """The share of blocks in the computed calls that BlockCache skipped, or None without BlockCache."""
    blocks = run["blockcache"] if run else None
    return blocks["block_calls_skipped"] / max(1, blocks["block_calls"]) if blocks else None


def table(rows, steps):
    """The rows as aligned text."""
    lines = [("", "computed", "reused", "blocks skipped", "seconds", "time ratio", "PSNR", "SSIM")]
    for row in rows:
        lines.append(
            (
                row["name"],
                str(steps if row["computed"] is None else row["computed"]),
                str(row["reused"]),
                "-" if row["blocks"] is None else f"{row['blocks']:.0%}",
                f"{row['seconds']:.2f}",
                f"{row['ratio']:.2f}",
                "-" if row["psnr"] is None else psnr_text(row["psnr"]),
                "-" if row["ssim"] is None else f"{row['ssim']:.4f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    )


def caption(row, steps):
    """The two-line caption of a variant's video."""
    if row["computed"] is None:
        return f"{row['name']}\n{steps} calls, {row['seconds']:.2f} s"
    quality = "" if row["psnr"] is None else f", {psnr_text(row['psnr'])}"
    calls = row["computed"] + row["reused"]
    return f"{row['name']}: {row['computed']} of {calls} calls computed\n{row['seconds']:.2f} s{quality}"


def write_comparison(path, results, captions):
    """The videos side by side with captions, as an animated WebP."""
    write_film(path, side_by_side([result.video for result in results], captions))


def write_film(path, film):
    """A video, (frames, height, width, 3) in [0, 1], as an animated WebP."""
    pictures = [Image.fromarray(frame) for frame in (film * 255).round().byte().numpy()]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0, quality=90, method=4
    )


def write_results(folder, results, steps):
    """Write comparison.webp, plot.png and report.json; returns the rows of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(results)
    report = build_report([result.run for result in results if result.run])
    write_comparison(folder / "comparison.webp", results, [caption(row, steps) for row in rows])
    names = [result.variant.name for result in results if result.run]
    Image.fromarray(plot_runs(report["runs"], names)).save(folder / "plot.png")
    (folder / "report.json").write_text(dump_report(report) + "\n", encoding="utf-8")
    return rows
