"""Node PreciseCache Compare: videos side by side, with their distance to the reference and what they took."""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from comfy_api.latest import io

from ..precisecache_core.checks import require
from ..precisecache_core.compare.cost import Cost, read_cost
from ..precisecache_core.compare.difference import GAIN, Difference
from ..precisecache_core.compare.entry import cost_words, entry_line, quality_words, speedup_words
from ..precisecache_core.compare.perceptual import lpips_net, perceptual_distance
from ..precisecache_core.compare.quality import compare_videos, has_ssim
from ..precisecache_core.compare.side_by_side import Video, side_by_side
from ..precisecache_core.record.report import jsonable
from .host.device import on_model_device

NAMES = ("reference", "first", "second", "third", "fourth")
VIEWS = VIDEOS, DIFFERENCE, BOTH = ("videos", "difference", "both")
NO_SSIM = "no SSIM: kornia is not installed (python -m pip install kornia, with ComfyUI's Python)"
WIDE = 3  # columns; more videos than that go into two rows


class PreciseCacheCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheCompare",
            display_name="PreciseCache Compare",
            category="PreciseCache",
            description="Puts videos of the same seed side by side and measures how near they are to the uncached one. "
            "With the reports of Cache Stats, it also shows computed calls, seconds and speed-up.",
            is_output_node=True,  # so that it runs, and its numbers are in the history, with nothing connected
            inputs=[
                io.Image.Input("reference", tooltip="The uncached frames."),
                io.Image.Input("first", tooltip="Frames of the same size, sampled with a cache."),
                *(
                    io.Image.Input(
                        name, optional=True, tooltip="More frames of the same size, for example of another cache."
                    )
                    for name in NAMES[2:]
                ),
                *(
                    io.String.Input(
                        f"{name}_report",
                        optional=True,
                        force_input=True,
                        tooltip=f"The report of the Cache Stats node behind the sampler that made {name}: gives its "
                        "computed calls, seconds, speed-up and label.",
                    )
                    for name in NAMES
                ),
                io.String.Input(
                    "labels",
                    default="",
                    optional=True,
                    tooltip="What is written over the videos, separated by commas, beginning with the reference. An "
                    "empty label is filled in by the report.",
                ),
                io.Combo.Input(
                    "view",
                    options=list(VIEWS),
                    default=VIDEOS,
                    optional=True,
                    tooltip="videos: the videos. difference: how much each one differs from the reference at each "
                    f"pixel, {GAIN} times as bright. both: the differences under the videos.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="comparison", tooltip="The videos side by side, with their numbers."),
                io.String.Output(display_name="metrics", tooltip="The numbers as text, a line for each video."),
            ],
        )

    @classmethod
    def execute(
        cls,
        reference: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor | None = None,
        third: torch.Tensor | None = None,
        fourth: torch.Tensor | None = None,
        labels: str = "",
        view: str = VIDEOS,
        **reports: str | None,
    ) -> io.NodeOutput:
        require(view in VIEWS, "view", f"one of {', '.join(VIEWS)}", view, f"The default is {VIDEOS}.")
        given = zip(NAMES, (reference, first, second, third, fourth))
        videos = {name: rgb(name, video) for name, video in given if video is not None}
        costs = {name: cost_of(name, reports.get(f"{name}_report")) for name in videos}
        names = labels_of(costs, labels)
        net, advice = lpips_net()
        entries = {name: figures(name, names, costs) for name in videos}
        for name in list(videos)[1:]:
            entries[name] |= distance(name, videos, net)
        entries = jsonable(entries)
        told = [entry_line(entry) for entry in entries.values() if "psnr" in entry or cost_words(entry)]
        return io.NodeOutput(
            picture(videos, entries, view),
            "\n".join(told + ([] if has_ssim() else [NO_SSIM]) + ([advice] if advice else [])),
            ui={
                "precisecache_compare": list(entries.values())[1:],
                "precisecache_compare_reference": list(entries.values())[:1],
            },
        )


def rgb(name: str, video: torch.Tensor) -> torch.Tensor:
    """The frames with three channels, (frames, H, W, 3); grey is repeated, alpha is dropped.

    name: of the node's input. video: (frames, H, W, 1, 3 or 4), any dtype; not written to.
    Raises ValueError naming the input for any other number of channels.
    """
    if video.shape[-1] not in (1, 3, 4):
        raise ValueError(f"PreciseCache: {name} must have 1, 3 or 4 channels, got {video.shape[-1]}. Connect an IMAGE.")
    return video[..., :3].expand(*video.shape[:-1], 3)


def cost_of(name: str, report: str | None) -> Cost | None:
    """What a report says; None without one, or without a run in it.

    name: of the video. Raises ValueError naming the report's input if it is not a report.
    """
    return None if report is None else read_cost(report, f"{name}_report")


def labels_of(costs: dict[str, Cost | None], text: str) -> dict[str, str]:
    """{name of an input: its label}: the given text, else the report's label, else the name.

    costs: {name: what its report says}. text: labels separated by commas.
    """
    given = [" ".join(label.split()) for label in re.split("[,，、]", text)]
    given += [""] * (len(costs) - len(given))
    return {name: label or (cost.label if cost else "") or name for (name, cost), label in zip(costs.items(), given)}


def figures(name: str, labels: dict[str, str], costs: dict[str, Cost | None]) -> dict:
    """Label, calls, seconds and speed-up of one video; the reference has no speed-up.

    name: of the video. labels, costs: {name: its label}, {name: what its report says, or None}.
    """
    cost = costs[name]
    entry: dict[str, Any] = {"label": labels[name], "computed": None, "calls": None, "seconds": None}
    if cost is not None:
        entry |= {"computed": cost.computed, "calls": cost.calls, "seconds": cost.seconds}
    if name != "reference":
        entry["speedup"], entry["is_measured"] = cost.speedup(costs["reference"]) if cost else (None, None)
    return entry


def distance(name: str, videos: dict[str, torch.Tensor], net: Any) -> dict:
    """PSNR (dB), SSIM, LPIPS and equality of one video with the reference, {"psnr", "ssim", "lpips", "equal"}.

    name: of the input. videos: {name: (frames, H, W, 3)}, among them "reference". net: of LPIPS, or None.
    Raises ValueError naming the input if the shapes differ.
    """
    reference, video = videos["reference"], videos[name]

    def measure(device: torch.device, each_frame: Callable[[], None]) -> tuple[float, float | None, float | None]:
        psnr, ssim = compare_videos(reference, video, device, each_frame)
        lpips = perceptual_distance(reference, video, net, device, each_frame) if net is not None else None
        return psnr, ssim, lpips

    try:
        psnr, ssim, lpips = on_model_device(measure, len(video) * (1 if net is None else 2))
    except ValueError as error:
        raise ValueError(f"PreciseCache: {name}: {error}. Use the same latent for both samplers.") from error
    return {"psnr": psnr, "ssim": ssim, "lpips": lpips, "equal": psnr == math.inf}


def picture(videos: dict[str, torch.Tensor], entries: dict[str, dict], view: str) -> torch.Tensor:
    """The videos, their differences or both under their captions, (frames, H, W, 3), float32 in [0, 1].

    videos: {name: (frames, H, W, 3)}, the reference first. entries: {name: its figures}. view: one of VIEWS.
    """
    reference, *candidates = videos.values()
    differences: list[Video | None] = [Difference(reference, video) for video in candidates]
    captions = [caption(entry, len(reference)) for entry in entries.values()]
    if view == DIFFERENCE:
        captions = [f"{text}\ndifference x {GAIN}" for text in captions[1:]]
        return side_by_side(differences, captions, columns(len(candidates)))
    if view == VIDEOS:
        return side_by_side(list(videos.values()), captions, columns(len(videos)))
    under = ["", *(f"{entry['label']}\ndifference x {GAIN}" for entry in list(entries.values())[1:])]
    return side_by_side([*videos.values(), None, *differences], captions + under, len(videos))


def caption(entry: dict, frames: int) -> str:
    """A video's label and its numbers, each kind on a line of its own."""
    lines = [entry["label"], quality_words(entry) or f"{frames} frames", cost_words(entry), speedup_words(entry)]
    return "\n".join(line for line in lines if line)


def columns(count: int) -> int:
    """How many of these videos stand in a row: two rows from WIDE + 1 videos on."""
    return count if count <= WIDE else math.ceil(count / 2)
