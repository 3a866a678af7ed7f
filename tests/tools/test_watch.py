"""`run.py graph --watch` on a real server: what runs, what a failure and an interrupt do, wrong options."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from testkit.tiny_host import ROOT
from tools.graph import __main__ as command
from tools.graph.options import parse
from tools.graph.shipped import DEMO, load_graph, set_inputs

HANGS_SECONDS = 900  # ends a wait that has failed; nothing is expected to take that long
SMALL = [
    *(f"EmptyHunyuanLatentVideo.{size}" for size in ("width=64", "height=64", "length=5")),
    "KSampler.steps=12",
]
SMALL = [part for change in SMALL for part in ("--set", change)]


def write(path, graph):
    path.write_text(json.dumps(graph), "utf-8")


def report_of(folder):
    (file,) = folder.glob("precisecache_report_*.json")
    (run,) = json.loads(file.read_text("utf-8"))["runs"]
    return run


def test_every_graph_runs_in_name_order_and_failures_do_not_end_it(server, tmp_path, capsys, rows):
    folder, out = tmp_path / "queue", tmp_path / "out"
    folder.mkdir()
    shutil.copy(DEMO, folder / "c.json")
    shutil.copy(DEMO, folder / "a.json")
    (folder / "b.json").write_text(DEMO.read_text("utf-8")[:500], "utf-8")
    shutil.copy(ROOT / "workflows" / DEMO.name, folder / "d.json")
    write(folder / "e.json", {**load_graph(), "20": {"class_type": "DecodeByMagic", "inputs": {}}})
    (folder / "notes.txt").write_text("no graph", "utf-8")
    arguments = ["--watch", str(folder), "--once", "--server", server.address, *SMALL, "--out", str(out)]
    assert command.main(arguments) == 1
    said = capsys.readouterr().out
    table = rows(said)
    assert list(table) == ["a.json", "b.json", "c.json", "d.json", "e.json", "total"]
    assert "cannot read" in table["b.json"][-1] and "Export" in table["d.json"][-1]
    assert "DecodeByMagic" in table["e.json"][-1] and table["total"][-1] == "2 done, 3 failed"
    runs = {name: report_of(out / name) for name in ("a", "c")}
    for name, run in runs.items():
        _, computed, reused, speedup, *_ = table[f"{name}.json"]
        assert (int(computed), int(reused)) == (run["computed"], run["reused"]) and run["reused"] > 0
        assert speedup == f"{run['speedup']:.2f}x" and list((out / name).glob("*.mp4"))
    assert int(table["total"][2]) == sum(run["reused"] for run in runs.values())


def test_each_line_of_a_text_file_is_a_prompt(server, tmp_path, capsys, rows):
    (tmp_path / "shapes.txt").write_text("# shapes\ncircle\n\nno such shape\nsquare\n", "utf-8")
    write(tmp_path / "other.json", {})
    arguments = ["--watch", str(tmp_path), "--once", "--server", server.address, "--out", str(tmp_path / "out"), *SMALL]
    assert command.main([str(DEMO), *arguments, "--prompt-input", "PreciseCacheTinyModel.subject"]) == 1
    table = rows(capsys.readouterr().out)
    assert list(table) == ["shapes.txt:2", "shapes.txt:4", "shapes.txt:5", "total"]
    assert "'no such shape' not in ['circle'" in table["shapes.txt:4"][-1] and table["shapes.txt:5"][-1] == "done"
    found = {path.parent.name for path in tmp_path.glob("out/shapes/*/*.mp4")}
    assert found == {"002_circle", "005_square"}


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "Give a GRAPH"),
        (["a.json", "--once"], "--once needs --watch"),
        (["a.json", "--prompt-input", "6.text"], "--prompt-input needs --watch"),
        (["--watch", ".", "--prompt-input", "6.text"], "--prompt-input needs the GRAPH"),
        (["--watch", "no-such-folder"], "--watch no-such-folder: there is no such folder"),
        (["tests"], "is a folder: give it with --watch"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        parse(arguments)
    assert stop.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize(
    "graph, more, says",
    [(DEMO, [], "--prompt-input"), (DEMO, ["--prompt-input", "KSampler.prompt"], "no input 'prompt'")],
)
def test_a_graph_without_a_place_for_the_prompt_is_refused_before_anything_runs(tmp_path, capsys, graph, more, says):
    assert command.main([str(graph), "--watch", str(tmp_path), "--once", *more]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_stops_the_prompt_and_prints_the_table(server, tmp_path, rows, wait_until_idle):
    small = load_graph()
    set_inputs(small, "EmptyHunyuanLatentVideo", width=64, height=64, length=5)
    set_inputs(small, "KSampler", steps=8, seed=3)
    write(tmp_path / "a.json", small)
    set_inputs(small, "KSampler", steps=10000)
    set_inputs(small, "PreciseCacheLFCache", preset="custom", alpha=0)
    write(tmp_path / "b.json", small)
    command = [sys.executable, "-u", "-m", "tools.graph", "--watch", str(tmp_path), "--server", server.address]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "of 10000" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=HANGS_SECONDS)
    table = rows(out)
    assert process.returncode == 130 and "stopped" in errors and "Traceback" not in errors
    assert [table[name][-1] for name in ("a.json", "b.json", "total")] == [
        "done",
        "stopped",
        "1 done, 0 failed, 1 stopped",
    ]
    wait_until_idle()
