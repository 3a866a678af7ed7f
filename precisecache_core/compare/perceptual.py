"""LPIPS, the distance that a network sees between two videos, where the package lpips and its weights are installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SMALLEST = 31  # pixels: AlexNet's features need them
FETCH = "import lpips; lpips.LPIPS(net='alex')"  # downloads the weights
NO_WEIGHTS = f"no LPIPS: run python -c \"{FETCH}\" once with ComfyUI's Python; it downloads AlexNet's weights"


def lpips_net() -> tuple[Any, str | None]:
    """(The LPIPS network with AlexNet's features on the CPU, None), or (None, what to do to get it).

    Nothing to do is said where the package is not installed. Never downloads anything.
    Source: Zhang et al. (2018), by their package lpips.
    """
    try:
        import lpips
        from torchvision.models import AlexNet_Weights
    except ImportError:
        return None, None
    name = AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    if not (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file():
        return None, NO_WEIGHTS
    return lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False), None


def perceptual_distance(
    reference: torch.Tensor,
    video: torch.Tensor,
    net: Any,
    device: torch.device | str = "cpu",
    each_frame: Callable[[], None] = lambda: None,
) -> float | None:
    """Mean LPIPS over the frames of two videos; 0 for equal ones. None for frames smaller than SMALLEST.

    reference, video: tensors (frames, height, width, 3), float in [0, 1], equal shapes, any devices.
    net: the network of `lpips_net`; it is moved to the device.
    device: where the pairs of frames are measured, one pair at a time, in float32.
    each_frame: called before each pair; an exception that it raises ends the measurement.
    """
    if min(reference.shape[1:3]) < SMALLEST:
        return None
    net.to(device)
    distances = []
    with torch.no_grad():
        for pair in zip(reference, video):
            each_frame()
            a, b = (2 * frame.to(device, torch.float32).movedim(-1, 0)[None] - 1 for frame in pair)
            distances.append(net(a, b).mean())
    return torch.stack(distances).mean().item()
