"""The node PreciseCache Compare, called as the host calls it."""

import math
import sys

import comfy.model_management
import pytest
import torch
from PreciseCache.nodes.compare import PreciseCacheCompare
from PreciseCache.nodes.host.device import on_model_device


@pytest.fixture
def video():
    return torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))


def compare(*videos, **inputs):
    return PreciseCacheCompare.execute(*videos, **inputs)


def entries(out):
    return out.ui["precisecache_compare"]


def test_two_videos_against_the_reference(video):
    out = compare(video, video + 0.1, video.clone(), labels="bare, mine, same")
    film, text = out.result
    first, second = entries(out)
    assert film.shape[0] == 2 and film.shape[2] > 3 * 256
    assert first["label"] == "mine" and first["psnr"] == pytest.approx(20, abs=1e-3) and not first["equal"]
    assert second == {"label": "same", "psnr": None, "ssim": pytest.approx(1), "equal": True}
    assert text == f"mine: 20.00 dB, SSIM {first['ssim']:.4f}\nsame: equal"


@pytest.mark.parametrize(
    "labels, expected",
    [
        ("", ["first", "second"]),
        ("a", ["first", "second"]),
        ("a,,b", ["first", "b"]),
        ("a, b ,c,d", ["b", "c"]),
        ("a，b、c", ["b", "c"]),
        ("a, two\nlines", ["two lines", "second"]),
    ],
)
def test_labels(video, labels, expected):
    assert [entry["label"] for entry in entries(compare(video, video, video, labels=labels))] == expected


def test_the_schema_and_a_graph_without_labels_agree(video):
    default = next(i.default for i in PreciseCacheCompare.define_schema().inputs if i.id == "labels")
    assert entries(compare(video, video)) == entries(compare(video, video, labels=default))


def test_each_video_has_its_own_caption(video):
    def strip(labels):
        return compare(video, video, labels=labels).result[0][0, :44]

    one, other = strip("a, b"), strip("a, c")
    half = one.shape[1] // 2
    assert torch.equal(one[:, :half], other[:, :half]) and not torch.equal(one[:, half:], other[:, half:])


def test_videos_of_other_sizes_are_refused(video):
    with pytest.raises(ValueError, match="PreciseCache: second: cannot compare 2 frames of 16 x 16 .* with 1 frames"):
        compare(video, video, video[:1])
    with pytest.raises(ValueError, match="PreciseCache: first must have 1, 3 or 4 channels, got 2"):
        compare(video, video[..., :2])


@pytest.mark.parametrize("turned", [0, 1, 2])
def test_transparency_is_ignored(video, turned):
    videos = [video] * 3
    videos[turned] = torch.cat([video, torch.rand(2, 16, 16, 1)], dim=-1)
    assert all(entry["equal"] for entry in entries(compare(*videos)))


def test_grey_frames_are_compared_with_coloured_ones(video):
    grey = video[..., :1]
    assert entries(compare(grey.expand(-1, -1, -1, 3), grey))[0]["equal"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_frames_that_are_not_finite_are_reported(video, value):
    broken = video.clone()
    broken[1, 2, 3] = value
    out = compare(video, broken)
    (entry,) = entries(out)
    assert "not finite" in out.result[1] and entry["psnr"] is None and not entry["equal"]


def test_without_kornia_the_text_says_how_to_get_ssim(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.metrics", None)
    assert "pip install kornia" in compare(video, video + 0.1).result[1]


def test_an_interrupt_ends_it_between_two_frames(video):
    comfy.model_management.interrupt_current_processing(True)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            compare(video, video)
    finally:
        comfy.model_management.interrupt_current_processing(False)


def test_if_the_device_runs_out_of_memory_the_cpu_measures(monkeypatch):
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("meta"))
    asked = []

    def work(device, each_part):
        asked.append(device.type)
        if len(asked) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 7

    assert on_model_device(work, 2) == 7 and asked == ["meta", "cpu"]
