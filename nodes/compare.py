"""Node PreciseCache Compare: videos side by side, with their distance to the reference."""

import math
import re

import torch
from comfy_api.latest import io

from ..precisecache_core.compare.quality import compare_videos, has_ssim, quality_text
from ..precisecache_core.compare.side_by_side import side_by_side
from ..precisecache_core.record.report import jsonable
from .host.device import on_model_device

LABELS = "uncached, cached"
NO_SSIM = "no SSIM: kornia is not installed (python -m pip install kornia, with ComfyUI's Python)"


class PreciseCacheCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheCompare",
            display_name="PreciseCache Compare",
            category="PreciseCache",
            description="Puts videos of the same seed side by side and measures how near they are to the uncached one.",
            is_output_node=True,  # so that it runs, and its numbers are in the history, with nothing connected
            inputs=[
                io.Image.Input("reference", tooltip="The uncached frames."),
                io.Image.Input("first", tooltip="Frames of the same size, sampled with a cache."),
                io.Image.Input(
                    "second", optional=True, tooltip="More frames of the same size, for example of another cache."
                ),
                io.String.Input(
                    "labels",
                    default=LABELS,
                    optional=True,
                    tooltip="What is written over the videos, separated by commas.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="comparison", tooltip="The videos side by side, with PSNR and SSIM."),
                io.String.Output(display_name="metrics", tooltip="PSNR and SSIM as text, a line for each video."),
            ],
        )

    @classmethod
    def execute(
        cls, reference: torch.Tensor, first: torch.Tensor, second: torch.Tensor | None = None, labels: str = LABELS
    ) -> io.NodeOutput:
        videos = {"reference": reference, "first": first} | ({} if second is None else {"second": second})
        videos = {name: rgb(name, video) for name, video in videos.items()}
        names = labels_of(videos, labels)
        entries = [{"label": names[name], **distance(name, videos)} for name in list(videos)[1:]]
        texts = [quality_text(entry["psnr"], entry["ssim"]) for entry in entries]
        lines = [f"{entry['label']}: {text}" for entry, text in zip(entries, texts)]
        captions = [f"{label}\n{text}" for label, text in zip(names.values(), [f"{len(reference)} frames", *texts])]
        return io.NodeOutput(
            side_by_side(list(videos.values()), captions),
            "\n".join(lines + ([] if has_ssim() else [NO_SSIM])),
            ui={"precisecache_compare": jsonable(entries)},
        )


def rgb(name: str, video: torch.Tensor) -> torch.Tensor:
    """The frames with three channels, (frames, H, W, 3); grey is repeated, alpha is dropped.

    name: of the node's input. video: (frames, H, W, 1, 3 or 4), any dtype; not written to.
    Raises ValueError naming the input for any other number of channels.
    """
    if video.shape[-1] not in (1, 3, 4):
        raise ValueError(f"PreciseCache: {name} must have 1, 3 or 4 channels, got {video.shape[-1]}. Connect an IMAGE.")
    return video[..., :3].expand(*video.shape[:-1], 3)


def labels_of(videos: dict[str, torch.Tensor], text: str) -> dict[str, str]:
    """{name of an input: its label}, from texts separated by commas; an empty text gives the name."""
    given = [" ".join(label.split()) for label in re.split("[,，、]", text)]
    return {name: label or name for name, label in zip(videos, given + [""] * len(videos))}


def distance(name: str, videos: dict[str, torch.Tensor]) -> dict:
    """PSNR (dB), SSIM and equality of one video with the reference, {"psnr", "ssim", "equal"}.

    name: of the input. videos: {name: (frames, H, W, 3)}, among them "reference".
    Raises ValueError naming the input if the shapes differ.
    """
    reference, video = videos["reference"], videos[name]
    try:
        psnr, ssim = on_model_device(
            lambda device, each_frame: compare_videos(reference, video, device, each_frame), len(video)
        )
    except ValueError as error:
        raise ValueError(f"PreciseCache: {name}: {error}. Use the same latent for both samplers.") from error
    return {"psnr": psnr, "ssim": ssim, "equal": psnr == math.inf}
