"""The demo: its parts, and a whole run without ComfyUI on a small latent and few steps."""

import asyncio
import json
import re

import numpy as np
import pytest
from PIL import Image

from precisecache_core.tiny.prompts import COLORS, MOTIONS, SUBJECTS
from tools.demo import __main__ as command
from tools.demo.hosted import tell_steps
from tools.demo.options import STARTED, parse
from tools.demo.variants import VARIANTS, Take, measure
from tools.graph.shipped import bypass, load_flash, load_graph, load_step_cache, only_node, set_inputs


def test_bypass_gives_the_sampler_the_bare_model():
    graph = load_step_cache()
    bypass(graph, "PreciseCacheLFCache")
    tiny = only_node(graph, "PreciseCacheTinyModel")
    for class_type in ("KSampler", "PreciseCacheStats"):
        assert graph[only_node(graph, class_type)]["inputs"]["model"] == [tiny, 0]
    with pytest.raises(RuntimeError, match="PreciseCacheLFCache"):
        only_node(graph, "PreciseCacheLFCache")


def test_flash_is_the_demo_graph_with_turbo_and_blockcache_at_its_defaults():
    steps, flash = load_step_cache(), load_flash()
    blocks = flash[only_node(flash, "PreciseCacheBlockCache")]["inputs"]
    assert (blocks["cache_rate"], blocks["reuse_steps"]) == (0.4, 3)
    bypass(flash, "PreciseCacheBlockCache")
    set_inputs(steps, "PreciseCacheLFCache", preset="turbo")
    assert flash == steps
    saved = steps[only_node(steps, "SaveAnimatedWEBP")]["inputs"]
    assert saved["images"] == [only_node(steps, "VAEDecode"), 0] and saved["lossless"]


def test_a_graph_without_the_input_is_an_error():
    with pytest.raises(RuntimeError, match="KSampler has no input stepz"):
        set_inputs(load_graph(), "KSampler", stepz=3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "4,4"],
        ["--size", "0,8,8"],
        ["--steps", "0"],
        ["--comfyui", "no-such-folder"],
        ["--embedded", "--comfyui", "x"],
    ],
)
def test_wrong_options_end_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(arguments)
    assert stop.value.code == 2 and "error: " in capsys.readouterr().err


def test_the_embedded_demo_prints_what_its_files_hold(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv",
        ["tools.demo", "--embedded", "--size", "2,8,8", "--steps", "10", "--repeats", "1", "--out", str(tmp_path)],
    )
    monkeypatch.setenv(STARTED, "0")  # 1970
    assert command.main() == 0
    run, flash = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert run["calls"] == run["steps"] == 10 and run["reused"] > 0
    printed = capsys.readouterr().out
    assert f"{run['computed']:>8}  {run['reused']:>6}" in printed and run["blockcache"] is None
    assert f"{flash['computed']:>8}  {flash['reused']:>6}" in printed and flash["plan"]["budget"] == 8
    blocks = flash["blockcache"]
    assert f"{blocks['block_calls_skipped'] / blocks['block_calls']:.0%}" in printed and blocks["blocks"] == 16
    assert (tmp_path / "summary.txt").read_text().strip() in printed
    minutes, first = re.search(r"first picture after (\d+) min \d\d s: (.*)", printed).groups()
    assert int(minutes) > 29_000_000 and first == str(tmp_path / "uncached.webp")
    with Image.open(first) as film:
        assert film.n_frames == 5 and film.size == (64, 64)
    with Image.open(tmp_path / "comparison.webp") as film:
        assert film.n_frames == 5 and film.width > 3 * 256
    with Image.open(tmp_path / "plot.png") as plot:
        assert len(plot.getcolors(1 << 20)) > 10


def test_every_run_is_a_phase_and_the_first_result_is_handed_over_at_once(capsys):
    sampled, first = [], []

    async def sample(variant, steps, on_step):
        sampled.append((variant.name, steps))
        for step in (1, steps):
            on_step(step, steps)
        return Take(np.zeros((1, 2, 2, 3), np.float32), len(sampled), None)

    results = asyncio.run(measure(sample, 50, 2, lambda result: first.append((len(sampled), result.seconds))))
    names = [variant.name for variant in VARIANTS]
    assert sampled == [(name, 8) for name in names] + [(name, 50) for name in names * 2]
    assert first == [(4, 4)] and [result.times for result in results] == [[4, 7], [5, 8], [6, 9]]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "warming up with 8 steps of each variant ..."
    assert lines[2:4] == ["uncached, run 1 of 2 ...", "uncached, run 1 of 2: 4.00 s"]
    assert lines[-1] == "flash, run 2 of 2: 9.00 s" and len(lines) == 14


def test_the_samplers_progress_is_told_and_no_other_nodes():
    told = []
    for event in (
        {"type": "progress", "data": {"node": "3", "value": 7, "max": 50}},
        {"type": "progress", "data": {"node": "8", "value": 1, "max": 2}},
        {"type": "progress", "data": {"node": "3", "value": 0, "max": 0}},
        {"type": "executing", "data": {"node": "3"}},
        {"type": "status"},
    ):
        tell_steps(event, "3", lambda *step: told.append(step))
    assert told == [(7, 50)]


def test_the_help_lists_the_words_that_the_model_knows(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in (SUBJECTS, COLORS, MOTIONS):
        assert f": {', '.join(words)} (" in text


def test_an_unknown_word_is_refused_with_the_known_ones(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tools.demo", "--embedded", "--subject", "dog"])
    assert command.main() == 1
    assert "circle, square" in capsys.readouterr().err
