"""LPIPS, if the package and its weights are installed."""

from functools import cache
from pathlib import Path

import torch


@cache
def lpips_net():
    """The LPIPS network with AlexNet's features, or None; never downloads anything."""
    try:
        import lpips
    except ImportError:
        return None
    if not list((Path(torch.hub.get_dir()) / "checkpoints").glob("alexnet-*.pth")):
        return None
    return lpips.LPIPS(net="alex", verbose=False)


def perceptual_distance(reference, video):
    """Mean LPIPS over the frames of two videos, (frames, height, width, 3) float in [0, 1]; None if not installed."""
    net = lpips_net()
    if net is None:
        return None
    first, second = (2 * v.movedim(-1, 1).float() - 1 for v in (reference, video))
    return net(first, second).mean().item()
