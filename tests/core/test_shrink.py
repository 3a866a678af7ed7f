"""By which factors a latent may shrink, and which values the small latent has."""

import pytest
import torch

from precisecache_core.lfcache.latent.shrink import fit_factors, shrink_latent


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((1, 16, 8, 16, 16), (2, 4, 4)),
        ((1, 16, 21, 45, 79), (2, 4, 4)),  # odd sides are cropped; the factors stay
        ((1, 16, 1, 16, 16), (1, 4, 4)),  # a single frame
        ((1, 16, 8, 6, 16), (2, 3, 4)),  # 6 rows hold 3 patches
        ((1, 16, 8, 7, 5), (2, 3, 2)),
        ((1, 16, 8, 3, 2), (2, 1, 1)),  # one patch high and wide
        ((1, 16, 1, 1, 1), (1, 1, 1)),  # less than a patch
        ((1, 4, 64, 64), (1, 4, 4)),  # an image has no time
        ((1, 4, 4, 64), (1, 2, 4)),
    ],
)
def test_factors_leave_at_least_one_patch_per_side(shape, expected):
    assert fit_factors(shape, 2, 4) == expected


def test_the_patch_bounds_the_factors():
    assert fit_factors((1, 16, 8, 16, 16), 8, 8, patch=(1, 1, 1)) == (8, 8, 8)
    assert fit_factors((1, 16, 8, 16, 16), 8, 8, patch=(4, 8, 2)) == (2, 2, 8)


@pytest.mark.parametrize("shape", [(16, 8, 8), (1, 1, 1, 1, 8, 8)])
def test_other_dimensions_raise(shape):
    with pytest.raises(ValueError, match="^PreciseCache: a latent must have 4 or 5 dimensions"):
        fit_factors(shape, 2, 4)


def test_a_video_is_averaged_over_whole_cells():
    # 3 frames of 3 x 5: the last frame, row and column are left over by cells of 2, 2, 2
    x = torch.arange(45.0).view(1, 1, 3, 3, 5)
    small = shrink_latent(x, (2, 2, 2))
    # frame 0 has 0 1 / 5 6, frame 1 the same plus 15: the mean is 3 + 7.5, and 2 more in the next cell
    assert torch.equal(small, torch.tensor([10.5, 12.5]).view(1, 1, 1, 1, 2))


def test_an_image_is_averaged_over_whole_cells():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(shrink_latent(x, (1, 3, 2)), torch.tensor([4.5, 6.5]).view(1, 1, 1, 2))


def test_a_small_latent_holds_whole_patches():
    x = torch.arange(5 * 6.0).view(1, 1, 1, 5, 6)
    # cells of 1 x 2: 5 rows are 2 patches and one row, 3 columns one patch and one column
    small = shrink_latent(x, (1, 1, 2), patch=(1, 2, 2))
    assert small.shape == (1, 1, 1, 4, 2)
    assert torch.equal(small[0, 0, 0, 3], torch.tensor([18.5, 20.5]))
    # 480 rows of video: 60 in the latent, 15 in cells of 4
    assert shrink_latent(torch.zeros(1, 16, 17, 60, 80), (2, 4, 4), (1, 2, 2)).shape == (1, 16, 8, 14, 20)
    # a side shorter than a patch stays, a longer one is cropped to whole patches
    assert shrink_latent(torch.zeros(1, 1, 1, 1, 3), (1, 1, 1), (1, 2, 2)).shape == (1, 1, 1, 1, 2)


def test_the_input_stays_unchanged():
    x = torch.randn(1, 2, 4, 8, 8)
    before = x.clone()
    shrink_latent(x, (2, 4, 4)).add_(1)
    # factors of 1 must not hand out the input itself
    shrink_latent(x, (1, 1, 1)).add_(1)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 2, 4, 4), (1, 1, 4, 4)])
def test_half_precision_stays_in_its_dtype(dtype, shape):
    small = shrink_latent(torch.full(shape, 3, dtype=dtype), (1, 2, 2))
    assert small.dtype == dtype and (small == 3).all()
