"""LPIPS, if the package and its weights are installed."""

from functools import cache

from precisecache_core.compare import perceptual


@cache
def lpips_net():
    """The LPIPS network with AlexNet's features, or None; never downloads anything."""
    return perceptual.lpips_net()[0]


def perceptual_distance(reference, video):
    """Mean LPIPS over the frames of two videos, (frames, height, width, 3) float in [0, 1]; None if not installed."""
    net = lpips_net()
    return None if net is None else perceptual.perceptual_distance(reference, video, net)
