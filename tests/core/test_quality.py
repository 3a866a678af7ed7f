"""PSNR and SSIM of videos, and videos side by side."""

import math
import sys

import pytest
import torch

from precisecache_core.quality import WINDOW, compare_videos, decibels
from precisecache_core.side_by_side import CAPTION_HEIGHT, GAP, side_by_side


@pytest.fixture
def video():
    return torch.rand(2, 20, 24, 3, generator=torch.Generator().manual_seed(0))


def test_psnr_of_a_known_difference():
    black = torch.zeros(2, 16, 16, 3)
    psnr, ssim = compare_videos(black, black + 0.2)
    assert psnr == pytest.approx(20 * math.log10(5), abs=1e-4) and ssim < 0.1


def test_psnr_is_over_the_whole_video(video):
    other = video.clone()
    other[1] += 0.1
    assert compare_videos(video, other)[0] == pytest.approx(-10 * math.log10(0.01 / 2), abs=1e-4)


def test_ssim_is_scikit_images_with_a_gaussian_window(video):
    metrics = pytest.importorskip("skimage.metrics")
    other = (video + 0.1 * torch.randn(video.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    expected = [metrics.structural_similarity(
        a.numpy(), b.numpy(), data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False) for a, b in zip(video, other)]
    assert compare_videos(video, other)[1] == pytest.approx(sum(expected) / 2, abs=1e-5)
    assert 0.3 < expected[0] < 0.999


def test_equal_videos(video):
    assert compare_videos(video, video.clone()) == (math.inf, pytest.approx(1))


def test_frames_smaller_than_the_window_have_no_ssim(video):
    small = video[:, :WINDOW - 1]
    assert compare_videos(small, small)[1] is None


def test_without_kornia_there_is_psnr_alone(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.metrics", None)
    assert compare_videos(video, video + 0.1) == (pytest.approx(20, abs=1e-3), None)


def test_other_shapes_are_refused_by_their_sizes(video):
    with pytest.raises(ValueError, match="2 frames of 24 x 20 with 1 frames of 24 x 20"):
        compare_videos(video, video[:1])


@pytest.mark.parametrize("psnr, text", [(41.009, "41.01 dB"), (math.inf, "equal"), (math.nan, "not finite")])
def test_psnr_as_text(psnr, text):
    assert decibels(psnr) == text


def test_a_frame_that_is_not_finite(video):
    broken = video.clone()
    broken[0, 3, 3] = math.nan
    assert math.isnan(compare_videos(video, broken)[0])


@pytest.mark.parametrize("width, scale", [(300, 1), (256, 1), (100, 3)])
def test_videos_stand_side_by_side_under_their_captions(width, scale):
    videos = [torch.full((2, 10, width, 3), value) for value in (0.25, 0.75)]
    film = side_by_side(videos, ["a", "b\nc"])
    panel = width * scale
    assert film.shape == (2, 10 * scale + CAPTION_HEIGHT + GAP, 2 * panel + 3 * GAP, 3)
    below = film[:, CAPTION_HEIGHT:-GAP]
    assert (below[:, :, GAP:GAP + panel] == 0.25).all() and (below[:, :, 2 * GAP + panel:-GAP] == 0.75).all()
    heading = film[0, :CAPTION_HEIGHT]
    assert heading[:, :GAP + panel].min() < 0.5 and heading[:, GAP + panel:].min() < 0.5
    assert (film[:, CAPTION_HEIGHT:, GAP + panel:2 * GAP + panel] == 1).all()


def test_a_long_caption_stays_over_its_video():
    videos = [torch.zeros(1, 8, 256, 3)] * 2
    film = side_by_side(videos, ["W" * 500, ""])
    assert (film[0, :CAPTION_HEIGHT, GAP + 256:] == 1).all()
