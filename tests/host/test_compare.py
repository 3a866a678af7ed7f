"""Node PreciseCache Compare, called as the host calls it."""

import math

import pytest
import torch

from benchmarks.tiny_host import pack_module


@pytest.fixture
def video():
    return torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))


def compare(*videos, **inputs):
    return pack_module("nodes.compare").PreciseCacheCompare.execute(*videos, **inputs)


def test_two_videos_against_the_reference(video):
    out = compare(video, video + 0.1, video.clone(), labels="bare, mine, same")
    film, text = out.result
    first, second = out.ui["precisecache_compare"]
    assert film.shape[0] == 2 and film.shape[2] > 3 * 256
    assert first["label"] == "mine" and first["psnr"] == pytest.approx(20, abs=1e-3) and not first["equal"]
    assert second == {"label": "same", "psnr": None, "ssim": pytest.approx(1), "equal": True}
    assert text == f"mine: 20.00 dB, SSIM {first['ssim']:.4f}\nsame: equal, SSIM 1.0000"


@pytest.mark.parametrize("labels, expected", [("", "first"), ("a", "first"), ("a,,b", "first"), ("a, b ,c", "b")])
def test_a_label_that_is_not_given_is_the_inputs_name(video, labels, expected):
    assert compare(video, video, labels=labels).ui["precisecache_compare"][0]["label"] == expected


def test_videos_of_other_sizes_are_refused(video):
    with pytest.raises(ValueError, match="PreciseCache: second: cannot compare 2 frames of 16 x 16 with 1 frames"):
        compare(video, video, video[:1])


def test_transparency_is_left_out(video):
    clear = torch.cat([video, torch.zeros(2, 16, 16, 1)], dim=-1)
    assert compare(video, clear).ui["precisecache_compare"][0]["equal"]


def test_frames_that_are_not_finite_are_said_to_be(video):
    out = compare(video, video * math.nan)
    assert "not finite" in out.result[1] and out.ui["precisecache_compare"][0]["psnr"] is None


def test_without_kornia_the_text_says_how_to_get_ssim(video, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kornia.metrics", None)
    assert "pip install kornia" in compare(video, video + 0.1).result[1]


def test_where_the_device_has_no_memory_left_the_cpu_measures(video, monkeypatch):
    device = pack_module("nodes.host.device")
    monkeypatch.setattr(device.comfy.model_management, "get_torch_device", lambda: torch.device("meta"))
    asked = []

    def work(device):
        asked.append(str(device))
        if len(asked) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 7

    assert device.on_fastest_device(work) == 7 and asked == ["meta", "cpu"]
