"""PSNR and SSIM of videos, and the film that shows videos side by side."""

import math
import sys

import pytest
import torch

from precisecache_core.compare.quality import WINDOW, compare_videos, quality_text
from precisecache_core.compare.side_by_side import CAPTION_HEIGHT, GAP, side_by_side
from precisecache_core.lettering import FONTS


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
    expected = [
        metrics.structural_similarity(
            a.numpy(),
            b.numpy(),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(video, other)
    ]
    assert compare_videos(video, other)[1] == pytest.approx(sum(expected) / 2, abs=1e-5)
    assert 0.3 < expected[0] < 0.999


def test_equal_videos(video):
    assert compare_videos(video, video.clone()) == (math.inf, pytest.approx(1))


def test_frames_smaller_than_the_window_have_no_ssim(video):
    small = video[:, : WINDOW - 1]
    assert compare_videos(small, small)[1] is None


def test_without_kornia_there_is_only_psnr(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.metrics", None)
    assert compare_videos(video, video + 0.1) == (pytest.approx(20, abs=1e-3), None)


@pytest.mark.parametrize(
    "other, says",
    [
        (lambda v: v[:1], "2 frames of 24 x 20 with 3 channels with 1 frames of 24 x 20 with 3 channels"),
        (lambda v: v[..., :1], "with 1 channels"),
    ],
)
def test_videos_of_different_shapes_are_refused_with_their_sizes(video, other, says):
    with pytest.raises(ValueError, match=says):
        compare_videos(video, other(video))
    with pytest.raises(ValueError, match="0 frames"):
        compare_videos(video[:0], video[:0])


@pytest.mark.parametrize(
    "quality, text",
    [
        ((41.009, 0.5), "41.01 dB, SSIM 0.5000"),
        ((41.0, None), "41.00 dB"),
        ((math.inf, 1.0), "equal"),
        ((math.nan, math.nan), "not finite"),
    ],
)
def test_quality_in_words(quality, text):
    assert quality_text(*quality) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_frame_that_is_not_finite_makes_psnr_nan(video, value):
    broken = video.clone()
    broken[0, 3, 3] = value
    assert math.isnan(compare_videos(video, broken)[0])
    assert math.isnan(compare_videos(broken, broken)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_videos_in_16_bits_are_measured_in_32(video, dtype):
    other = (video / 2 + 0.25).to(dtype)
    assert compare_videos(video, other) == compare_videos(video, other.float())


def test_an_interrupt_ends_the_comparison_at_a_frame(video):
    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compare_videos(video, video, each_frame=stop)


@pytest.mark.parametrize(
    "shape, panel",
    [
        ((256, 256), (256, 256)),
        ((20, 300), (20, 300)),
        ((40, 100), (120, 300)),
        ((360, 640), (360, 640)),
        ((720, 1280), (360, 640)),
        ((1280, 720), (640, 360)),
    ],
)
def test_videos_stand_side_by_side_under_their_captions(shape, panel):
    height, width = panel
    ramp = torch.linspace(0, 1, shape[1])[None, :, None].expand(*shape, 3)
    videos = [torch.stack([ramp, ramp.flip(1)]), torch.full((2, *shape, 3), 0.75)]
    film = side_by_side(videos, ["a", "b\nc"])
    scale = max(1, width / 256)
    gap, strip = round(GAP * scale), round(CAPTION_HEIGHT * scale)
    assert film.shape == (2, height + strip + gap, 2 * width + 3 * gap, 3)
    left, right = (film[:, strip:-gap, start : start + width] for start in (gap, 2 * gap + width))
    assert (right == 0.75).all()
    assert left[0, 0, 0, 0] < 0.01 < 0.99 < left[0, 0, -1, 0]
    assert left[0, 0].diff(dim=0).min() >= 0 >= left[1, 0].diff(dim=0).max()
    assert (film[:, strip:, gap + width : 2 * gap + width] == 1).all()


def test_both_lines_of_a_caption_are_drawn_large_enough_over_their_video():
    def lines(width, caption):
        strip = side_by_side([torch.zeros(1, 300, width, 3)] * 2, ["", caption])[0]
        strip = strip[: round(CAPTION_HEIGHT * width / 256), width + 2 * round(GAP * width / 256) :, 0]
        return [(half < 0.5).any(1).sum().item() for half in strip.chunk(2)]

    for width in (256, 640):
        upper, lower = lines(width, "first\nsecond")
        assert min(upper, lower) >= width / 256 * 8  # rows of pixels with ink
        assert lines(width, "first")[1] < lower / 2


def test_a_long_caption_stays_over_its_video():
    videos = [torch.zeros(1, 256, 256, 3)] * 2
    film = side_by_side(videos, ["W" * 500, ""])
    assert (film[0, :CAPTION_HEIGHT, GAP + 256 :] == 1).all()


def test_letters_that_pillows_font_lacks_are_drawn_with_another_font():
    fonts = [font for font in FONTS if has_font(font)]
    if not fonts:
        pytest.skip("no other font on this machine")
    texts = ["ä", "ж"]
    first, second = (side_by_side([torch.zeros(1, 256, 256, 3)], [text])[0, :CAPTION_HEIGHT] for text in texts)
    assert not torch.equal(first, second)  # Pillow's own font draws the same box for both


def has_font(name):
    ImageFont = pytest.importorskip("PIL.ImageFont")
    try:
        return bool(ImageFont.truetype(name, 14))
    except OSError:
        return False


def test_captions_are_drawn_by_a_pillow_whose_font_has_one_size(monkeypatch):
    from PIL import ImageFont

    font = ImageFont.load_default(14)
    monkeypatch.setattr(ImageFont, "load_default", lambda: font)
    assert (side_by_side([torch.ones(1, 256, 256, 3)], ["text"])[0, :CAPTION_HEIGHT] < 0.5).any()
