"""The benchmarks' own PSNR and SSIM, with the uniform windows of the kept records."""

import numpy as np
import pytest

from benchmarks.quality import compare


def test_psnr_and_ssim_are_scikit_images():
    for span, kind in ((1.0, np.float32), (255, np.uint8)):
        black = np.zeros((2, 8, 8, 3), kind)
        grey = black + kind(span / 5)
        psnr, ssim = compare(black, grey)
        assert psnr == pytest.approx(20 * np.log10(5), abs=1e-4) and ssim < 1
        assert compare(black, black) == (np.inf, pytest.approx(1.0))
        with pytest.raises(ValueError, match="cannot compare"):
            compare(black, grey[1:])
