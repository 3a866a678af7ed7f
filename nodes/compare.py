"""Node PreciseCache Compare: videos side by side, with their distance to the first."""

import logging
import math

import torch
from comfy_api.latest import io

from ..precisecache_core.quality import compare_videos, decibels, has_ssim
from ..precisecache_core.report import jsonable
from ..precisecache_core.side_by_side import side_by_side
from .host.device import on_fastest_device

logger = logging.getLogger("precisecache")
NO_SSIM = "no SSIM: kornia is not installed (pip install kornia)"


class PreciseCacheCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PreciseCacheCompare",
            display_name="PreciseCache Compare",
            category="PreciseCache",
            description="Puts videos of the same seed side by side and measures how near they are to the uncached one.",
            inputs=[
                io.Image.Input("reference", tooltip="The uncached frames."),
                io.Image.Input("first", tooltip="Frames of the same size, sampled with a cache."),
                io.Image.Input("second", optional=True, tooltip="More frames of the same size, for example of another "
                               "cache."),
                io.String.Input("labels", default="uncached, LFCache, EasyCache", optional=True,
                                tooltip="What is written over the videos, separated by commas."),
            ],
            outputs=[
                io.Image.Output(display_name="comparison", tooltip="The videos side by side, with PSNR and SSIM."),
                io.String.Output(display_name="metrics", tooltip="PSNR and SSIM as text, a line for each video."),
            ],
        )

    @classmethod
    def execute(cls, reference, first, second=None, labels=""):
        reference, others = reference[..., :3], {"first": first[..., :3]}
        if second is not None:
            others["second"] = second[..., :3]
        given = [label.strip() for label in labels.split(",")] + [""] * 3
        captions = [f"{given[0] or 'reference'}\n{len(reference)} frames"]
        entries, lines = [], []
        for label, (name, video) in zip(given[1:], others.items()):
            psnr, ssim = measured(name, reference, video)
            label, distance = label or name, described(psnr, ssim)
            captions.append(f"{label}\n{distance}")
            lines.append(f"{label}: {distance}")
            entries.append({"label": label, "psnr": psnr, "ssim": ssim, "equal": torch.equal(reference, video)})
        if not has_ssim():
            logger.warning("PreciseCache: %s", NO_SSIM)
            lines.append(NO_SSIM)
        return io.NodeOutput(side_by_side([reference, *others.values()], captions), "\n".join(lines),
                             ui={"precisecache_compare": jsonable(entries)})


def described(psnr, ssim):
    """PSNR and SSIM as they stand over a video; without SSIM where there is none."""
    return decibels(psnr) + (f", SSIM {ssim:.4f}" if ssim is not None and math.isfinite(ssim) else "")


def measured(name, reference, video):
    """(PSNR, SSIM), or a ValueError that names the input."""
    try:
        return on_fastest_device(lambda device: compare_videos(reference, video, device))
    except ValueError as error:
        raise ValueError(f"PreciseCache: {name}: {error}. Give both samplers the same latent.") from error
