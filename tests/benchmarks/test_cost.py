"""The parts of the cost benchmark, on a CPU; the pack's report must have the forced decisions."""

from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from PreciseCache.precisecache_core.blockcache import block_pass
from PreciseCache.precisecache_core.lfcache.controller import LFCacheController

from benchmarks.schedules import spread
from benchmarks.tables import cost
from benchmarks.timers import Timers

pytestmark = pytest.mark.usefixtures("host_of_benchmarks")


def tiny(model="wan14b"):
    return replace(cost.case_of(model, device="cpu", layers=6), latent=(16, 4, 8, 8), text=4)


@pytest.fixture(scope="module", params=("wan14b", "hunyuan"))
def fitted(request, bench):
    return cost.fitted(tiny(request.param))


def test_with_a_gpu_the_model_has_its_full_size():
    with mock.patch.object(torch.cuda, "is_available", return_value=True):
        case = cost.case_of("wan14b", "720p")
        assert (case.latent, case.layers, case.dtype, case.device, case.notes) == (
            (16, 21, 90, 160),
            40,
            torch.bfloat16,
            "cuda",
            (),
        )
        assert cost.case_of("hunyuan", "640x512", "fp16", layers=7).latent == (16, 17, 64, 80)
        assert cost.case_of("wan14b", "720p", device="cpu").device == "cpu"


def test_without_a_gpu_the_model_is_smaller_and_the_notes_say_so():
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        case = cost.case_of("wan1.3b", "480p", device="cuda")
    assert case.device == "cpu" and case.layers == cost.SMALL_LAYERS
    assert "NOT FULL SIZE" in case.notes[0] and "no GPU" in case.notes[0]


def test_running_out_of_memory_halves_the_blocks(bench):
    answers = [torch.cuda.OutOfMemoryError(), None]
    with mock.patch.object(cost, "sample", side_effect=answers):
        case, patcher = cost.fitted(tiny())
    assert case.layers == len(patcher.model.diffusion_model.blocks) == 3
    assert case.notes[-1] == "the GPU's memory ran out: 3 blocks instead of 6"
    with mock.patch.object(cost, "sample", side_effect=torch.cuda.OutOfMemoryError), pytest.raises(SystemExit) as end:
        cost.fitted(tiny())
    assert "smaller" in end.value.code


def test_runs_make_the_forced_decisions(fitted):
    case, patcher = fitted
    before = LFCacheController.decide
    runs = cost.forced_runs(case, patcher, 12, 2)
    assert LFCacheController.decide is before
    decisions = cost.variants(patcher, case.model, 12)["turbo"][1]
    assert decisions == spread(12, 6) and len(runs["uncached"]) == 2
    for run in (*runs["turbo"], *runs["flash"]):
        assert run.report["decisions"] == decisions and run.report["warnings"] == []
        assert run.report["trials"] == 12
    assert all(run.report["blockcache"]["block_calls_skipped"] == 3 * 2 for run in runs["flash"])
    assert all(run.report is None and run.seconds > 0 and run.peak is None for run in runs["uncached"])

    for run in runs["turbo"]:
        found = cost.parts(run)
        assert [len(found[name]) for name in ("call", "trial", "own C", "own R")] == [6, 12, 6, 6]
        assert all(s >= 0 for seconds in found.values() for s in seconds)
    lines = cost.end_to_end_lines(runs, decisions)
    assert sum("decisions as forced" in line for line in lines) == 2
    assert "100.00% of a call" in cost.part_lines(runs)[0]


def test_every_storage_is_measured(fitted):
    case, patcher = fitted
    found = cost.block_runs(case, patcher)
    assert [(storage, device) for storage, device, _, _ in found] == [
        ("merged", "model"),
        ("merged", "cpu"),
        ("per_block", "model"),
        ("per_block", "cpu"),
    ]
    for storage, _, run, skips in found:
        entry = run.report["blockcache"]
        assert run.report["warnings"] == [] and run.report["decisions"] == "C" * cost.BLOCK_STEPS
        # calls 2, 3, 4 and 6, 7, 8 skip two of six blocks
        assert entry["block_calls_skipped"] == 6 * 2
        assert len(skips) == 12 if storage == "per_block" else 6 <= len(skips) <= 12
        assert all(s >= 0 for s in skips)
    assert block_pass.add_residuals.__name__ == "add_residuals"
    assert len(cost.block_lines(found)) == 4


def test_random_weights_leave_every_number_finite(fitted):
    case, patcher = fitted
    latent = cost.sample(case, patcher, 2)
    assert latent.shape == (1, *case.latent) and torch.isfinite(latent).all() and latent.std() > 0


@pytest.mark.parametrize("model", ("wan14b", "hunyuan"))
def test_the_gpus_dtype_runs(bench, model):
    case = replace(tiny(model), dtype=torch.bfloat16)
    patcher = cost.random_model(case)
    assert patcher.model.get_dtype_inference() == torch.bfloat16
    assert torch.isfinite(cost.sample(case, patcher, 2)).all()


def test_running_out_of_memory_later_is_reported_in_a_line(bench):
    with (
        mock.patch.object(cost, "forced_runs", side_effect=torch.cuda.OutOfMemoryError("full")),
        mock.patch.object(cost, "block_runs", side_effect=torch.cuda.OutOfMemoryError("full")),
    ):
        groups = list(cost.report_lines(tiny(), None, 12, 1))
    assert groups == [["BlockCache: memory ran out (full)", ""], ["end to end: memory ran out (full)"]]


def test_a_run_that_stood_aside_is_reported():
    timers = Timers()
    report = {"decisions": "CCCC", "warnings": ["no trial"], "blockcache": None}
    runs = {"uncached": [cost.Run(2.0, None, timers)], "turbo": [cost.Run(2.0, None, timers, report)]}
    lines = cost.end_to_end_lines(runs, "CCCR")
    assert any("made CCCC" in line for line in lines) and "no trial" in lines[-1]
    assert cost.part_lines({"turbo": [cost.Run(2.0, None, timers, report)]})[0].startswith("LFCache made no trial")


def test_cuda_event_times_are_converted_from_milliseconds():
    start = SimpleNamespace(elapsed_time=lambda end: 1500.0)
    timers = Timers(is_cuda=True)
    timers.spans["call"].append((start, None))
    assert timers.seconds("call") == [1.5]


def test_without_a_host_the_command_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(cost, "find_host", lambda: None)
    monkeypatch.setattr("sys.argv", ["cost"])
    with pytest.raises(SystemExit) as end:
        cost.main()
    assert "COMFYUI_PATH" in end.value.code
