"""`run.py graph --watch` while the folder changes and while the server goes away, on a server that runs all at once."""

import asyncio
import io
import json
import sys

import pytest

from tools.comfyui import client
from tools.graph import __main__ as command
from tools.graph import watch
from tools.graph.jobs import GraphFiles, PromptFiles
from tools.graph.options import parse

TRIVIAL = {"1": {"class_type": "Anything", "inputs": {}}}


def write(path, graph):
    path.write_text(json.dumps(graph), "utf-8")


def watch_with(server, folder, steps, *arguments):
    """Watch the folder; each pause between two looks does the next step, and Ctrl+C comes after the last one."""
    options = parse([*arguments, "--watch", str(folder), "--server", server.address])
    files = (PromptFiles if options.graph else GraphFiles)(options)
    steps = iter(steps)

    async def pause(seconds):
        step = next(steps, None)
        if step is None:
            raise asyncio.CancelledError
        step()

    running = watch.Watch(options, server, files, pause)
    with pytest.raises(watch.Stopped):
        asyncio.run(running.run())
    return [(outcome.name, outcome.state) for outcome in running.outcomes]


def test_later_and_changed_files_run_and_unchanged_ones_do_not(fake_server, tmp_path, capsys, rows):
    folder = tmp_path / "queue"
    folder.mkdir()
    write(folder / "b.json", TRIVIAL)
    half = json.dumps(TRIVIAL)[:-5]
    ran = watch_with(
        fake_server,
        folder,
        [
            lambda: (folder / "a.json").write_text(half, "utf-8"),
            lambda: write(folder / "a.json", TRIVIAL),  # half written before
            lambda: None,
            lambda: write(folder / "b.json", {**TRIVIAL, "2": TRIVIAL["1"]}),
            lambda: (folder / "c.json").write_text("{", "utf-8"),
            lambda: None,  # the same for two looks: it stays broken
            lambda: None,
        ],
    )
    assert ran == [("b.json", "done"), ("a.json", "done"), ("b.json", "done"), ("c.json", "failed")]
    assert rows(capsys.readouterr().out)["total"][-1] == "3 done, 1 failed"


def test_a_prompt_that_is_done_does_not_run_again(fake_server, tmp_path):
    graph = {"1": {"class_type": "Text", "inputs": {"text": "", "positive": ["1", 0]}}}
    write(tmp_path / "graph.json", graph)
    folder = tmp_path / "queue"
    folder.mkdir()
    prompts = folder / "p.txt"
    prompts.write_text("a fox\n", "utf-8")
    steps = [lambda: None, lambda: prompts.write_text("an owl\na fox\n", "utf-8"), lambda: None, lambda: None]
    assert watch_with(fake_server, folder, steps, str(tmp_path / "graph.json")) == [
        ("p.txt:1", "done"),
        ("p.txt:1", "done"),
    ]


def test_a_prompt_may_have_characters_that_the_output_has_not(fake_server, tmp_path, monkeypatch):
    write(tmp_path / "graph.json", {"1": {"class_type": "Text", "inputs": {"text": "", "positive": ["1", 0]}}})
    (tmp_path / "p.txt").write_text("海边的狐狸", "utf-8")
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    arguments = [str(tmp_path / "graph.json"), "--watch", str(tmp_path), "--once", "--server", fake_server.address]
    assert command.main(arguments) == 0
    assert b"p.txt:1: ?????" in out.buffer.getvalue()


def test_a_server_that_ends_is_started_again_and_the_rest_runs(fake, tmp_path, capsys, rows):
    folder = tmp_path / "queue"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        write(folder / f"{name}.json", {"1": {"class_type": "Crash", "inputs": {}}} if name == "b" else TRIVIAL)
    assert command.main(["--watch", str(folder), "--once", "--comfyui", str(fake)]) == 1
    table = rows(capsys.readouterr().out)
    assert [cells[-1].split(":")[0] for cells in table.values()] == [
        "done",
        "failed",
        "done",
        "done",
        "3 done, 1 failed",
    ]
    assert len((fake / "starts.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_running_server_that_is_lost_may_come_back(fake_server, tmp_path, capsys, monkeypatch, comes_back, rows):
    folder = tmp_path / "queue"
    folder.mkdir()
    write(folder / "a.json", {"1": {"class_type": "Crash", "inputs": {}}})
    write(folder / "b.json", TRIVIAL)
    sleep, tries = asyncio.sleep, []

    async def retry(seconds):
        tries.append(seconds)
        if comes_back and len(tries) == 1:
            fake_server.process.wait()
            fake_server.start()
        await sleep(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", retry)
    monkeypatch.setattr(watch, "RETURN_SECONDS", 900 if comes_back else 0.3)
    assert command.main(["--watch", str(folder), "--once", "--server", fake_server.address]) == 1
    said = capsys.readouterr()
    assert tries and "to come back" in said.out
    assert rows(said.out)["b.json"][-1] == ("done" if comes_back else "not run")
    assert comes_back or f"no ComfyUI answered at {fake_server.address}" in said.err
