"""The graph runner against a real server: results, mistakes, a server that dies, an interrupt."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from precisecache_core import BlockCacheConfig
from testkit.tiny_host import ROOT, find_host
from tools.comfyui.server import ComfyServer, hold_port
from tools.graph import __main__ as command
from tools.graph import overrides
from tools.graph.progress import Progress
from tools.graph.shipped import GRAPHS, load_graph, only_node

DEMO = GRAPHS / "precisecache_tiny_demo.json"
# ends a wait that has failed; nothing is expected to take that long
HANGS_SECONDS = 900
SMALL = ["--set", "EmptyHunyuanLatentVideo.width=64", "--set", "3.height=64", "--set", "Empty video latent.length=5"]


@pytest.fixture(scope="module")
def host():
    return find_host() or pytest.skip("no ComfyUI")


@pytest.fixture(scope="module")
def server(host, tmp_path_factory):
    with ComfyServer(host, tmp_path_factory.mktemp("server") / "comfyui.log") as server:
        server.wait()
        yield server


def test_a_graph_with_changes_runs_and_its_files_and_report_are_saved(server, tmp_path, capsys):
    arguments = [
        str(DEMO),
        "--server",
        f"http://{server.address}/",
        "--preset",
        "flash",
        "--seed",
        "5",
        "--set",
        "KSampler.steps=20",
        *SMALL,
        "--out",
        str(tmp_path),
    ]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    report = json.loads((tmp_path / "precisecache_report_5.json").read_text("utf-8"))
    (run,) = report["runs"]
    assert (
        run["steps"] == 20 and run["plan"]["budget"] == run["computed"] == 8 and run["latent_shape"] == [1, 16, 2, 8, 8]
    )
    assert run["blockcache"]["block_calls_skipped"] > 0
    assert out.count(f"WAN21: 20 calls, {run['computed']} computed, {run['reused']} reused\n") == 1
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 100 and f"wrote {video}" in out


@pytest.mark.parametrize("changes, computed", [([], 4), (["--set", "PreciseCacheLFCache.share=0.3"], 3)])
def test_the_preset_budget_computes_its_share(server, tmp_path, changes, computed):
    arguments = ["--server", server.address, "--preset", "budget", "--set", "KSampler.steps=10", *SMALL, *changes]
    assert command.main([str(DEMO), *arguments, "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("precisecache_report_*.json")
    (run,) = json.loads(file.read_text("utf-8"))["runs"]
    assert run["plan"]["budget"] == run["computed"] == computed and run["calls"] == run["trials"] == 10


def test_a_comparison_is_printed_and_saved(server, tmp_path, capsys):
    assert (
        command.main(
            [
                str(GRAPHS / "precisecache_compare.json"),
                "--server",
                server.address,
                "--out",
                str(tmp_path),
                *(
                    part
                    for change in ("BasicScheduler.steps=10", "7.width=64", "7.height=64", "7.length=5")
                    for part in ("--set", change)
                ),
            ]
        )
        == 0
    )
    entries = json.loads((tmp_path / "precisecache_comparison_50.json").read_text("utf-8"))
    out = capsys.readouterr().out
    mine, easy = entries
    assert (mine["label"], mine["computed"], mine["calls"]) == ("LFCache budget 0.4", 4, 10)
    assert easy["label"] == "EasyCache 0.2" and 2 < easy["computed"] <= easy["calls"] == 10
    for entry in entries:
        (line,) = (line for line in out.splitlines() if line.startswith(f"{entry['label']}: {entry['psnr']:.2f} dB"))
        assert f"{entry['computed']} of 10 computed" in line and line.endswith("(measured)")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--set", "KSampler.steps=-4"], "steps"),  # the server's own words
        (
            ["--set", "PreciseCacheLFCache.start_percent=0.9", "--set", "PreciseCacheLFCache.end_percent=0.1"],
            "start_percent must be below end_percent",
        ),
    ],
)
def test_a_refusal_of_the_server_is_printed(server, tmp_path, capsys, arguments, says):
    assert command.main([str(DEMO), "--server", server.address, *SMALL, *arguments, "--out", str(tmp_path)]) == 1
    assert says in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--set", "KSampler.stepz=4"], "KSampler has no input 'stepz'; it has"),
        (["--set", "KSample.steps=4"], "no node 'KSample'; it has 1 (PreciseCacheTinyModel, 'PreciseCache Tiny"),
        (["--set", "KSampler.model=4"], "comes from another node"),
        (["--set", "steps=4"], "expected NODE.INPUT=VALUE"),
        (
            ["--preset", "fastest"],
            "choose from off, base, turbo, flash, budget, paper, custom",
        ),
    ],
)
def test_a_change_that_does_not_fit_is_refused_before_anything_is_queued(tmp_path, capsys, arguments, says):
    assert command.main([str(DEMO), *arguments, "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_a_node_that_the_server_does_not_have_is_named(server, tmp_path, capsys):
    graph = load_graph(DEMO)
    graph[only_node(graph, "VAEDecode")]["class_type"] = "DecodeByMagic"
    (tmp_path / "graph.json").write_text(json.dumps(graph), "utf-8")
    assert command.main([str(tmp_path / "graph.json"), "--server", server.address]) == 1
    said = capsys.readouterr().err
    assert "DecodeByMagic" in said and len(said.splitlines()) < 8


def test_files_other_than_api_graphs_are_refused(tmp_path, capsys):
    assert command.main([str(tmp_path / "none.json")]) == 2 and "cannot read" in capsys.readouterr().err
    assert command.main([str(ROOT / "workflows" / "precisecache_tiny_demo.json")]) == 2
    assert "Export (API)" in capsys.readouterr().err


def test_a_missing_model_file_is_named(server, tmp_path, capsys):
    assert command.main([str(GRAPHS / "wan2.1_t2v_precisecache.json"), "--server", server.address]) == 1
    said = capsys.readouterr().err
    assert "UNETLoader (37): " in said and "wan2.1_t2v_1.3B_fp16.safetensors" in said
    assert len(said.splitlines()) < 8


def test_an_address_without_a_server_is_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "ANSWER_SECONDS", 1)
    with hold_port() as held:  # no server can answer there meanwhile
        assert command.main([str(DEMO), "--server", f"127.0.0.1:{held.getsockname()[1]}"]) == 1
    said = capsys.readouterr().err
    assert "no ComfyUI answered at 127.0.0.1" in said and "--comfyui" in said


def test_it_starts_and_stops_a_users_comfyui_and_leaves_no_results_in_it(host, tmp_path, capsys):
    def results():
        return {path for name in ("output", "temp") for path in (host / name).rglob("*")}

    before = results()
    assert (
        command.main([str(DEMO), "--comfyui", str(host), "--set", "KSampler.steps=8", *SMALL, "--out", str(tmp_path)])
        == 0
    )
    assert "WAN21: 8 calls" in capsys.readouterr().out and list(tmp_path.glob("*.mp4"))
    assert results() == before


def test_a_comfyui_that_does_not_start_is_reported_with_its_log(tmp_path, capsys):
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "samplers.py").touch()
    (tmp_path / "main.py").write_text("raise SystemExit('torch was built for another machine')")
    assert command.main([str(DEMO), "--comfyui", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "torch was built for another machine" in capsys.readouterr().err


def start(server, out, *more):
    """Start the command in a process of its own; return it once the sampler runs."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-m",
            "tools.graph",
            str(DEMO),
            "--server",
            server.address,
            *SMALL,
            "--set",
            "KSampler.steps=10000",
            "--preset",
            "custom",
            "--set",
            "PreciseCacheLFCache.alpha=0",
            "--out",
            str(out),
            *more,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "KSampler" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    return process


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_stops_the_prompt_on_the_server_too(server, tmp_path):
    process = start(server, tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS_SECONDS)
    assert process.returncode == 130 and "stopped" in errors
    deadline = time.monotonic() + HANGS_SECONDS
    while True:
        with urllib.request.urlopen(f"http://{server.address}/queue") as answer:
            if not any(json.load(answer).values()):
                break
        assert time.monotonic() < deadline, "the prompt runs on"
        time.sleep(0.2)


def test_a_server_that_dies_in_mid_run_is_reported(host, tmp_path):
    with ComfyServer(host, tmp_path / "comfyui.log") as server:
        server.wait()
        process = start(server, tmp_path)
        server.process.kill()
        _, errors = process.communicate(timeout=HANGS_SECONDS)
    assert process.returncode == 1 and "graph:" in errors and "connection" in errors.lower()


def test_changes_are_parsed_and_applied():
    assert overrides.parse("a.b.c=1.5") == ("a.b", "c", 1.5)
    assert overrides.parse("Load Image.image=my file.png") == ("Load Image", "image", "my file.png")
    assert overrides.parse('7.text="3"') == ("7", "text", "3")
    graph = load_graph()
    overrides.set_seed(graph, 9)
    assert graph[only_node(graph, "KSampler")]["inputs"]["seed"] == 9
    with pytest.raises(overrides.OverrideError, match="no node with a seed"):
        overrides.set_seed({"1": {"class_type": "A", "inputs": {}}}, 1)
    blocks = graph[only_node(graph, "PreciseCacheBlockCache")]["inputs"]
    blocks["cache_rate"] = 0.1
    overrides.set_preset(graph, "flash")
    assert graph[only_node(graph, "PreciseCacheLFCache")]["inputs"]["preset"] == "flash"
    assert blocks["cache_rate"] == BlockCacheConfig().cache_rate


def test_a_preset_leaves_nodes_that_are_off_to_time_a_run_as_they_are():
    graph = {
        str(number): {"class_type": "PreciseCacheLFCache", "inputs": {"preset": preset}}
        for number, preset in enumerate(["off", "budget", "base"])
    }
    overrides.set_preset(graph, "turbo")
    assert [node["inputs"]["preset"] for node in graph.values()] == ["off", "turbo", "turbo"]
    only_off = {"0": graph["0"]}
    overrides.set_preset(only_off, "turbo")
    assert only_off["0"]["inputs"]["preset"] == "turbo"


def test_progress_prints_every_tenth_where_the_output_is_no_terminal():
    out = io.StringIO()
    progress = Progress({"4": {"class_type": "KSampler", "inputs": {}}}, out)
    progress.take(json.dumps({"type": "executing", "data": {"node": "4"}}))
    for value in range(1, 101):
        progress.take(json.dumps({"type": "progress", "data": {"node": "4", "value": value, "max": 100}}))
    lines = out.getvalue().splitlines()
    assert lines[0] == "KSampler" and lines[-1] == "KSampler: 100 of 100" and len(lines) == 12


def test_every_run_is_printed_once_with_its_event_or_without():
    """The last event may come after the end, two Cache Stats may report one run, and two runs may be alike."""

    def run(id, **more):
        return {"model": "WAN21", "calls": 9, "computed": 3, "reused": 6, "run": id, "warnings": [], **more}

    out = io.StringIO()
    progress = Progress({}, out)
    for id in ("a", "b"):
        progress.take(json.dumps({"type": "precisecache.calls", "data": run(id, is_ended=True)}))
    lines = ["WAN21: 9 calls, 3 computed, 6 reused"] * 2
    assert out.getvalue().splitlines() == lines
    progress.results(
        {
            "5": {"precisecache": [{"runs": [run("a"), run("b"), run("c"), run("d", reused=5)]}]},
            "6": {
                "precisecache": [{"runs": [run("a"), run("e", computed=2, warnings=["too few"])]}],
                "precisecache_compare": [
                    {"label": "mine", "psnr": 40.5, "ssim": 0.99, "equal": False},
                    {"label": "same", "psnr": None, "ssim": 1.0, "equal": True},
                ],
            },
        }
    )
    assert out.getvalue().splitlines() == [
        *lines,
        lines[0],
        "WAN21: 9 calls, 3 computed, 5 reused",
        "WAN21: 9 calls, 2 computed, 6 reused",
        "warning: too few",
        "mine: 40.50 dB, SSIM 0.9900",
        "same: equal",
    ]
