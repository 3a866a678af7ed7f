"""How near a video is to a reference, for example to the uncached one."""

import math

import torch
import torch.nn.functional as F

WINDOW = 11  # pixels; the Gaussian window of Wang et al. 2004, whose sigma of 1.5 is kornia's too


def compare_videos(reference, video, device="cpu", each_frame=lambda: None):
    """(PSNR in dB over the whole video, mean SSIM over its frames).

    reference, video: tensors (frames, height, width, channels), float in [0, 1], equal shapes, any
        devices. device: where a pair of frames is measured, in float32, one at a time.
    each_frame: called before each of them; what it raises ends the comparison.
    PSNR is inf where no pixel differs and nan where one is not finite. SSIM is Wang et al.'s (2004),
    over the places where the window fits; None for frames smaller than it, or without kornia.
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


def quality_text(psnr, ssim):
    """What `compare_videos` returns, in words: "43.42 dB, SSIM 0.9964", "equal", "not finite"."""
    if ssim is None or not math.isfinite(psnr):
        return psnr_text(psnr)
    return f"{psnr_text(psnr)}, SSIM {ssim:.4f}"


def psnr_text(psnr):
    """A PSNR in words."""
    if math.isnan(psnr):
        return "not finite"
    return "equal" if psnr == math.inf else f"{psnr:.2f} dB"


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
    frames, height, width, channels = video.shape
    return f"{frames} frames of {width} x {height} with {channels} channels"
