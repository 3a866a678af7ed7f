"""The graph runner against a real server: results, mistakes, a server that dies, an interrupt."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from precisecache_core import BlockCacheConfig
from precisecache_core.record.report import speedup_text
from testkit.tiny_host import ROOT
from tools.comfyui.server import ComfyServer
from tools.graph import __main__ as command
from tools.graph import overrides
from tools.graph.shipped import DEMO, GRAPHS, load_graph, only_node

# ends a wait that has failed; nothing is expected to take that long
HANGS_SECONDS = 900
LATENT = only_node(load_graph(), "EmptyHunyuanLatentVideo")
# a node may be named by its class, its id or its title
SMALL = [
    *("--set", "EmptyHunyuanLatentVideo.width=64"),
    *("--set", f"{LATENT}.height=64"),
    *("--set", "Empty video latent.length=5"),
]


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
    stats = only_node(load_graph(), "PreciseCacheStats")
    report = json.loads((tmp_path / f"precisecache_report_{stats}.json").read_text("utf-8"))
    (run,) = report["runs"]
    assert (
        run["steps"] == 20 and run["plan"]["budget"] == run["computed"] == 8 and run["latent_shape"] == [1, 16, 2, 8, 8]
    )
    assert run["blockcache"]["block_calls_skipped"] > 0
    assert out.count(f"WAN21: 20 calls, {run['computed']} computed, {run['reused']} reused\n") == 1
    steps = [line for line in out.splitlines() if line.startswith("KSampler: ")]
    assert steps[-1] == f"KSampler: 20 of 20, reused {run['reused']} of 20 calls"
    (done,) = (line for line in out.splitlines() if line.startswith("done in "))
    assert done.endswith(f"8 calls computed, 12 reused, {speedup_text(run['speedup'], run['saved_seconds'])}")
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 100 and f"wrote {video}" in out


def test_without_cache_stats_the_end_of_a_run_is_awaited(server, tmp_path, capsys):
    """Only an event has the final counts then, and it may come after the prompt's end."""
    graph = load_graph(DEMO)
    for name in ("PreciseCacheStats", "PreviewImage", "VAEDecode", "CreateVideo", "SaveVideo"):
        del graph[only_node(graph, name)]
    sampler = only_node(graph, "KSampler")
    graph["20"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "latent"}}
    (tmp_path / "graph.json").write_text(json.dumps(graph), "utf-8")
    arguments = ["--server", server.address, *SMALL, "--set", "KSampler.steps=10", "--out", str(tmp_path)]
    assert command.main([str(tmp_path / "graph.json"), *arguments]) == 0
    out = capsys.readouterr().out
    (counts,) = re.findall(r"WAN21: 10 calls, (\d+) computed, (\d+) reused", out)
    steps = [line for line in out.splitlines() if line.startswith("KSampler: ")]
    assert int(counts[1]) > 0 and steps[-1] == f"KSampler: 10 of 10, reused {counts[1]} of 10 calls"
    assert "{} calls computed, {} reused".format(*counts) in out.splitlines()[-2]


@pytest.mark.parametrize("changes, computed", [([], 4), (["--set", "PreciseCacheLFCache.share=0.3"], 3)])
def test_the_preset_budget_computes_its_share(server, tmp_path, changes, computed):
    arguments = ["--server", server.address, "--preset", "budget", "--set", "KSampler.steps=10", *SMALL, *changes]
    assert command.main([str(DEMO), *arguments, "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("precisecache_report_*.json")
    (run,) = json.loads(file.read_text("utf-8"))["runs"]
    assert run["plan"]["budget"] == run["computed"] == computed and run["calls"] == run["trials"] == 10


TINY = ("width=64", "height=64", "length=5")


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
                    for change in ("BasicScheduler.steps=10", *(f"Empty video latent.{size}" for size in TINY))
                    for part in ("--set", change)
                ),
            ]
        )
        == 0
    )
    (compared,) = tmp_path.glob("precisecache_comparison_*.json")
    entries = json.loads(compared.read_text("utf-8"))
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
    assert "This ComfyUI has no DecodeByMagic: install the custom nodes that have them" in said
    assert len(said.splitlines()) < 8


@pytest.mark.parametrize("name", ["wan2.1_t2v_raylight_precisecache", "hunyuan_video_raylight_precisecache"])
def test_without_raylight_its_nodes_are_named_and_what_to_install(server, capsys, name):
    assert command.main([str(GRAPHS / f"{name}.json"), "--server", server.address, "--preset", "flash"]) == 1
    said = capsys.readouterr().err
    kinds = "RayInitializer, RayModelSamplingSD3, RayUNETLoader, XFuserKSamplerAdvanced"
    assert f"This ComfyUI has no {kinds}: install Raylight (https://github.com/komikndr/raylight)" in said
    assert len(said.splitlines()) < 8


def test_files_other_than_api_graphs_are_refused(tmp_path, capsys):
    assert command.main([str(tmp_path / "none.json")]) == 2 and "cannot read" in capsys.readouterr().err
    assert command.main([str(ROOT / "workflows" / "precisecache_tiny_demo.json")]) == 2
    assert "Export (API)" in capsys.readouterr().err


def test_a_missing_model_file_is_named(server, tmp_path, capsys):
    assert command.main([str(GRAPHS / "wan2.1_t2v_precisecache.json"), "--server", server.address]) == 1
    said = capsys.readouterr().err
    assert "UNETLoader (1): " in said and "wan2.1_t2v_1.3B_fp16.safetensors" in said
    assert len(said.splitlines()) < 8


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
def test_an_interrupt_stops_the_prompt_on_the_server_too(server, tmp_path, wait_until_idle):
    process = start(server, tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS_SECONDS)
    assert process.returncode == 130 and "stopped" in errors
    wait_until_idle()


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


def test_a_preset_reaches_the_nodes_for_raylight_too():
    graph = load_graph(GRAPHS / "wan2.1_t2v_raylight_precisecache.json")
    blocks = {"cache_rate": 0.1, "reuse_steps": 1}
    graph["90"] = {"class_type": "PreciseCacheBlockCacheRay", "inputs": blocks}
    overrides.set_preset(graph, "flash")
    assert graph[only_node(graph, "PreciseCacheLFCacheRay")]["inputs"]["preset"] == "flash"
    assert blocks == {name: getattr(BlockCacheConfig(), name) for name in blocks}
    overrides.set_seed(graph, 9)
    assert graph[only_node(graph, "XFuserKSamplerAdvanced")]["inputs"]["noise_seed"] == 9


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
