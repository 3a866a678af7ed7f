"""The node PreciseCache Compare, called as the host calls it."""

import json
import math
import sys

import comfy.model_management
import pytest
import torch
from PreciseCache.nodes import compare as node
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
    assert second == {
        "label": "same",
        "psnr": None,
        "ssim": pytest.approx(1),
        "lpips": None,
        "equal": True,
        "computed": None,
        "calls": None,
        "seconds": None,
        "speedup": None,
        "is_measured": None,
    }
    assert text == f"mine: 20.00 dB, SSIM {first['ssim']:.4f}\nsame: equal"
    nothing = {"label": "bare", "computed": None, "calls": None, "seconds": None}
    assert out.ui["precisecache_compare_reference"] == [nothing]


def test_up_to_four_videos_are_compared(video):
    out = compare(video, *(video + i / 10 for i in range(1, 5)))
    found = [(entry["label"], round(entry["psnr"], 2)) for entry in entries(out)]
    decibels = [round(-20 * math.log10(i / 10), 2) for i in range(1, 5)]
    assert found == list(zip(("first", "second", "third", "fourth"), decibels))
    without_second = entries(compare(video, video, third=video + 0.1))
    assert [(entry["label"], entry["equal"]) for entry in without_second] == [("first", True), ("third", False)]


def report(label, computed, seconds, calls=30, speedup=None, **more):
    """A report as Cache Stats gives it, of one run."""
    run = {"run": label, "label": label, "calls": calls, "computed": computed, "reused": calls - computed}
    run |= {"seconds": {"sampling": 2 * seconds, "calls": seconds}, "speedup": speedup, "blockcache": None, **more}
    return json.dumps({"version": 2, "runs": [run]})


def test_reports_give_labels_calls_seconds_and_the_measured_speed_up(video):
    out = compare(
        video,
        video + 0.1,
        video.clone(),
        reference_report=report("uncached", 30, 98.4),
        first_report=report("LFCache base", 12, 41.0, speedup=9.9),
    )
    first, second = entries(out)
    assert first["label"] == "LFCache base" and (first["computed"], first["calls"], first["seconds"]) == (12, 30, 41.0)
    assert first["speedup"] == pytest.approx(2.4) and first["is_measured"] is True
    assert second["label"] == "second" and second["seconds"] is second["speedup"] is second["is_measured"] is None
    assert out.result[1].splitlines() == [
        "uncached: 30 of 30 computed, 1 min 38 s",
        f"LFCache base: 20.00 dB, SSIM {first['ssim']:.4f}, 12 of 30 computed, 41 s, 2.4x faster (measured)",
        "second: equal",
    ]
    (reference,) = out.ui["precisecache_compare_reference"]
    assert reference == {"label": "uncached", "computed": 30, "calls": 30, "seconds": 98.4}


def test_without_the_references_report_the_speed_up_is_the_reports_estimate(video):
    (entry,) = entries(compare(video, video, first_report=report("base", 12, 41.0, speedup=1.9)))
    assert (entry["speedup"], entry["is_measured"]) == (1.9, False)
    (entry,) = entries(compare(video, video, first_report=report("EasyCache 0.2", 12, 41.0)))
    assert (entry["speedup"], entry["is_measured"]) == (None, None)


def test_given_labels_come_before_those_of_reports(video):
    out = compare(
        video, video, video, labels=",mine", first_report=report("a", 1, 1.0), second_report=report("b", 1, 1.0)
    )
    assert [entry["label"] for entry in entries(out)] == ["mine", "b"]
    assert out.ui["precisecache_compare_reference"][0]["label"] == "reference"


@pytest.mark.parametrize("text", ["a b", '{"runs": 5}', '{"runs": [{}]}', "[1]", "{", 5])
def test_what_is_no_report_is_refused(video, text):
    says = r"PreciseCache: second_report must be the report of Cache Stats \(JSON\), got .*\. Connect the report output"
    with pytest.raises(ValueError, match=says):
        compare(video, video, video, second_report=text)


def test_a_report_without_runs_gives_nothing(video):
    assert entries(compare(video, video, first_report='{"version": 2, "runs": []}')) == entries(compare(video, video))


def test_what_cache_stats_reports_is_understood(bench, video):
    from PreciseCache.nodes.lfcache import PreciseCacheLFCache
    from PreciseCache.nodes.stats import PreciseCacheStats

    from testkit.host_caches import attach_easycache

    def sampled(model, preset):
        model = PreciseCacheLFCache.execute(model, preset, 0.2, 0.5).result[0]
        bench.sample(model, steps=12)
        return PreciseCacheStats.execute(model, {}).result[1]

    out = compare(
        *[video] * 3,
        reference_report=sampled(bench.model, "off"),
        first_report=sampled(bench.model, "budget"),
        second_report=sampled(attach_easycache(bench.model, 0.2), "off"),
    )
    mine, easy = entries(out)
    assert out.ui["precisecache_compare_reference"][0]["computed"] == 12
    assert (mine["label"], mine["computed"], mine["calls"]) == ("LFCache budget 0.5", 6, 12)
    assert easy["label"] == "EasyCache 0.2" and 2 < easy["computed"] < easy["calls"] == 12
    assert mine["is_measured"] and easy["is_measured"] and min(mine["seconds"], easy["seconds"]) > 0


def test_the_history_is_plain_json(video):
    broken = video.clone()
    broken[0, 0, 0] = math.nan
    out = compare(video, broken, video, first_report=report("a", 3, math.nan), second_report=report("b", 3, 0.0))
    assert json.loads(json.dumps(out.ui, allow_nan=False)) == out.ui
    assert entries(out)[0]["seconds"] is None


def test_the_view_shows_videos_differences_or_both(video):
    """Grey frames: a pixel is black in one difference and 8 times 0.05 in the other."""
    grey = torch.full((1, 256, 256, 3), 0.5)
    other = grey.clone()
    other[0, 100, 30] = 0.55

    def shown(view, *videos):
        return compare(grey, *videos, view=view).result[0][0]

    videos, difference = shown("videos", other), shown("difference", other)
    assert videos.shape == (44 + 264, 2 * 264 + 8, 3)
    assert (
        videos[44 + 100, 8 + 264 + 30] == pytest.approx([0.55] * 3)
        and videos[44 + 99, 8 + 264 + 30].tolist() == [0.5] * 3
    )
    strip = difference.shape[0] - 264
    assert difference.shape[1] == 264 + 8
    assert difference[strip + 100, 8 + 30] == pytest.approx([0.4] * 3, abs=1e-6)
    assert difference[strip + 99, 8 + 30].tolist() == [0.0] * 3
    both = shown("both", other)
    assert both.shape == (2 * (44 + 264), 2 * 264 + 8, 3)
    assert torch.equal(both[:308], videos) and (both[308:, :264] == 1).all()
    assert torch.equal(both[352:608, 272:528], difference[strip : strip + 256, 8:264])


@pytest.mark.parametrize(
    "count, view, rows, columns",
    [
        (2, "videos", 1, 3),
        (3, "videos", 2, 2),
        (4, "videos", 2, 3),
        (3, "difference", 1, 3),
        (4, "difference", 2, 2),
        (4, "both", 2, 5),
    ],
)
def test_many_videos_stand_in_two_rows(count, view, rows, columns):
    film = compare(*[torch.zeros(1, 256, 256, 3)] * (1 + count), view=view).result[0]
    assert film.shape[2] == columns * 264 + 8
    assert film.shape[1] // 264 == rows


def test_an_unknown_view_is_refused(video):
    with pytest.raises(ValueError, match="PreciseCache: view must be one of videos, difference, both, got 'all'"):
        compare(video, video, view="all")


class Net(torch.nn.Module):
    """In place of LPIPS: the mean difference of frames in [-1, 1]."""

    def forward(self, a, b):
        assert min(a.min(), b.min()) >= -1 and a.shape[:2] == (1, 3)
        return (a - b).abs().mean((1, 2, 3), keepdim=True)


def test_lpips_is_shown_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(node, "lpips_net", lambda: (Net(), None))
    grey = torch.full((2, 32, 32, 3), 0.5)
    out = compare(grey, grey + 0.1, grey)
    first, second = entries(out)
    assert first["lpips"] == pytest.approx(0.2, abs=1e-6) and second["lpips"] == 0
    assert ", LPIPS 0.2000" in out.result[1]
    monkeypatch.setattr(node, "lpips_net", lambda: (None, "do this"))
    out = compare(grey, grey + 0.1)
    assert out.result[1].splitlines()[-1] == "do this" and entries(out)[0]["lpips"] is None


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
