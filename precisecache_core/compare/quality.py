"""How near a video is to a reference, for example to the uncached one."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

WINDOW = 11  # pixels, the Gaussian window of Wang et al. (2004); kornia uses their sigma of 1.5 too


def compare_videos(
    reference: torch.Tensor,
    video: torch.Tensor,
    device: torch.device | str = "cpu",
    each_frame: Callable[[], None] = lambda: None,
) -> tuple[float, float | None]:
    """Measure (PSNR in dB over the whole video, mean SSIM over its frames).

    reference, video: tensors (frames, height, width, channels), float in [0, 1], equal shapes, any
        devices.
    device: where the pairs of frames are measured, one pair at a time, in float32.
    each_frame: called before each pair; an exception that it raises ends the comparison.
    PSNR is inf if no pixel differs and nan if one is not finite. SSIM is that of Wang et al. (2004),
    over the places where the whole window fits; None for frames smaller than it, or without kornia.
    Raises ValueError if the shapes differ or there are no frames.
    """
    if reference.shape != video.shape or not len(video):
        raise ValueError(f"cannot compare {_size(reference)} with {_size(video)}")
    ssim_map = _ssim() if min(reference.shape[1:3]) >= WINDOW else None
    errors, similarities = [], []
    for pair in zip(reference, video):
        each_frame()
        a, b = (frame.to(device, torch.float32).movedim(-1, 0)[None] for frame in pair)
        errors.append(F.mse_loss(a, b))
        if ssim_map:
            similarities.append(ssim_map(a, b, WINDOW, padding="valid").mean())
    error = torch.stack(errors).cpu().double().mean()
    psnr = -10 * error.log10().item() if error.isfinite() else math.nan
    return psnr, torch.stack(similarities).mean().item() if similarities else None


def quality_text(psnr: float, ssim: float | None, lpips: float | None = None) -> str:
    """The quality in words: "43.42 dB, SSIM 0.9964, LPIPS 0.0041", "equal" or "not finite"; None is left out.

    psnr, ssim: as `compare_videos` returns them. lpips: as `perceptual_distance` does.
    """
    values = {"SSIM": ssim, "LPIPS": lpips} if math.isfinite(psnr) else {}
    return ", ".join([psnr_text(psnr), *(f"{name} {value:.4f}" for name, value in values.items() if value is not None)])


def psnr_text(psnr: float) -> str:
    """A PSNR in words: "43.42 dB", "equal" or "not finite"."""
    if math.isnan(psnr):
        return "not finite"
    return "equal" if psnr == math.inf else f"{psnr:.2f} dB"


def has_ssim() -> bool:
    """Whether SSIM can be measured here: kornia is installed."""
    return _ssim() is not None


def _ssim() -> Callable[..., torch.Tensor] | None:
    try:
        from kornia.metrics import ssim
    except ImportError:
        return None
    return ssim


def _size(video: torch.Tensor) -> str:
    frames, height, width, channels = video.shape
    return f"{frames} frames of {width} x {height} with {channels} channels"
