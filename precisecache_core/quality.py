"""How near a video is to a reference, for example to the uncached one."""

import math

import torch
import torch.nn.functional as F

WINDOW = 11  # pixels; the Gaussian window of Wang et al. 2004, whose sigma of 1.5 is kornia's too


def compare_videos(reference, video, device="cpu"):
    """(PSNR in dB over the whole video, mean SSIM over its frames).

    reference, video: tensors (frames, height, width, channels), float in [0, 1], equal shapes.
    device: where a pair of frames is measured, one at a time.
    PSNR is inf for equal videos and nan where a frame is not finite. SSIM is Wang et al.'s (2004),
    over the places where the window fits; None for frames smaller than it, or without kornia.
    Raises ValueError if the shapes differ.
    """
    if reference.shape != video.shape:
        raise ValueError(f"cannot compare {_size(reference)} with {_size(video)}")
    ssim_map = _ssim() if min(reference.shape[1:3]) >= WINDOW else None
    errors, similarities = [], []
    for pair in zip(reference, video):
        a, b = (frame.to(device, torch.float32).movedim(-1, 0)[None] for frame in pair)
        errors.append(F.mse_loss(a, b))
        if ssim_map:
            similarities.append(ssim_map(a, b, WINDOW, padding="valid").mean())
    psnr = -10 * torch.stack(errors).cpu().double().mean().log10()
    return psnr.item(), torch.stack(similarities).mean().item() if similarities else None


def decibels(psnr):
    """A PSNR as text."""
    if math.isnan(psnr):
        return "not finite"
    return "equal" if math.isinf(psnr) else f"{psnr:.2f} dB"


def has_ssim():
    """Whether SSIM can be measured here."""
    return _ssim() is not None


def _ssim():
    try:
        from kornia.metrics import ssim
    except ImportError:
        return None
    return ssim


def _size(video):
    frames, height, width = video.shape[:3]
    return f"{frames} frames of {width} x {height}"
