"""How close a video is to the uncached one, measured as in the kept records.

SSIM is scikit-image's with uniform windows. The nodes and the demo report that of
`precisecache_core.compare.quality`, whose Gaussian window gives values that differ by up to some hundredths.
"""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def compare(reference, video):
    """(PSNR in dB over the whole video, mean SSIM over its frames).

    reference, video: (frames, height, width, 3), both float in [0, 1] or both uint8.
    PSNR is inf for equal videos. SSIM is None for frames smaller than its 7 x 7 window.
    Raises ValueError if shapes or types differ.
    """
    if reference.shape != video.shape or reference.dtype != video.dtype:
        raise ValueError(f"cannot compare {reference.shape} {reference.dtype} with {video.shape} {video.dtype}")
    span = 255 if reference.dtype == np.uint8 else 1.0
    if np.array_equal(reference, video):
        psnr = float("inf")
    else:
        psnr = float(peak_signal_noise_ratio(reference, video, data_range=span))
    if min(reference.shape[1:3]) < 7:
        return psnr, None
    pairs = zip(reference, video)
    return psnr, float(np.mean([structural_similarity(a, b, data_range=span, channel_axis=-1) for a, b in pairs]))
