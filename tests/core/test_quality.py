"""PSNR and SSIM of videos, and the film that shows videos side by side."""

import math
import sys

import pytest
import torch

from precisecache_core.compare.difference import GAIN, Difference
from precisecache_core.compare.perceptual import NO_WEIGHTS, SMALLEST, lpips_net, perceptual_distance
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
        ((41.0, 0.5, 0.12344), "41.00 dB, SSIM 0.5000, LPIPS 0.1234"),
        ((41.0, None, 0.5), "41.00 dB, LPIPS 0.5000"),
        ((math.inf, 1.0, 0.0), "equal"),
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


@pytest.mark.parametrize(
    "columns, size, places",
    [
        (None, (308, 4 * 264 + 8), [(44, 8), (44, 272), None, (44, 800)]),
        (2, (308 + 330, 2 * 264 + 8), [(44, 8), (44, 272), None, (308 + 66, 272)]),
    ],
)
def test_rows_are_as_high_as_their_captions_and_a_place_may_be_empty(columns, size, places):
    videos = [torch.full((1, 256, 256, 3), level) for level in (0.111, 0.222, 0.333, 0.444)]
    captions = ["", "", "", "1\n2\n3"] if columns else ["", "", "", ""]
    film = side_by_side([None if place is None else video for video, place in zip(videos, places)], captions, columns)
    assert film.shape == (1, *size, 3)
    for video, place in zip(videos, places):
        if place is None:
            assert not (film == video[0, 0, 0, 0]).any()
        else:
            top, left = place
            assert torch.equal(film[:, top : top + 256, left : left + 256], video)
            assert (film == video[0, 0, 0, 0]).all(-1).sum() == 256 * 256


@pytest.mark.parametrize("count, width", [(2, 640), (3, 640), (4, 480), (5, 384)])
def test_many_large_videos_in_a_row_are_shown_smaller(count, width):
    film = side_by_side([torch.zeros(1, 72, 1280, 3)] * count, [""] * count)
    gap = round(GAP * width / 256)
    assert film.shape[2] == count * (width + gap) + gap


def test_the_difference_of_known_pixels():
    reference = torch.full((2, 1, 4, 3), 0.5, dtype=torch.float16)
    video = reference.clone()
    video[1, 0] = torch.tensor([0.5, 0.5625, 0.46875, 1.0])[:, None]
    video[0, 0, 0] = math.nan
    before = video.clone()
    first, second = Difference(reference, video)
    assert first[0, :, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert second[0, :, 1].tolist() == [0.0, GAIN / 16, GAIN / 32, 1.0] and second.dtype == torch.float32
    assert torch.equal(video.nan_to_num(), before.nan_to_num())


class Sum(torch.nn.Module):
    def forward(self, a, b):
        return (b - a).sum((1, 2, 3), keepdim=True) / a[0].numel()


def test_lpips_is_the_mean_over_frames_in_the_networks_range():
    reference = torch.zeros(2, SMALLEST, SMALLEST, 3)
    video = torch.stack([reference[0] + 0.25, reference[0] + 0.5])
    assert perceptual_distance(reference, video, Sum()) == pytest.approx(0.75)
    assert perceptual_distance(reference[:, 1:], video[:, 1:], Sum()) is None

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        perceptual_distance(reference, video, Sum(), each_frame=stop)


def test_lpips_is_used_only_if_it_and_its_weights_are_installed(monkeypatch, tmp_path):
    models = pytest.importorskip("torchvision.models")
    made = []

    class Package:
        @staticmethod
        def LPIPS(**options):
            made.append(options)
            return Sum()

    monkeypatch.setitem(sys.modules, "lpips", None)
    assert lpips_net() == (None, None)
    monkeypatch.setitem(sys.modules, "lpips", Package)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert lpips_net() == (None, NO_WEIGHTS) and not made
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-4df8aa71.pth").touch()  # those of an earlier torchvision
    assert lpips_net() == (None, NO_WEIGHTS) and not made
    (tmp_path / "checkpoints" / models.AlexNet_Weights.IMAGENET1K_V1.url.split("/")[-1]).touch()
    net, advice = lpips_net()
    assert isinstance(net, Sum) and advice is None and made[0]["net"] == "alex"
