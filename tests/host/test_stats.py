"""Reports and events of runs: valid by the schema, bounded, sent to the right node, found again."""

import asyncio
import json
import math
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from jsonschema import Draft202012Validator
from PreciseCache.nodes.host import events
from PreciseCache.nodes.host.attachment import attach
from PreciseCache.nodes.host.events import CallFeed, Page, Throttle
from PreciseCache.nodes.host.prompt import Prompt
from PreciseCache.precisecache_core.cached_run import CachedRun
from PreciseCache.precisecache_core.record.journal import CallRecord
from PreciseCache.precisecache_core.sampling import FLOW_MODEL

from precisecache_core import build_report, dump_report
from testkit.tiny_host import ROOT, find_host
from tools.comfyui.client import ComfyClient
from tools.comfyui.server import ComfyServer
from tools.graph.shipped import load_flash, only_node, set_inputs

SCHEMA, EVENT_SCHEMA = (
    Draft202012Validator(json.loads((ROOT / "precisecache_core" / "record" / f"{name}.schema.json").read_text("utf-8")))
    for name in ("report", "event")
)


def checked(*runs):
    """The runs of a report, as a program reads them, after checking it against the schema."""
    report = json.loads(dump_report(build_report(runs)))
    SCHEMA.validate(report)
    return report["runs"]


@pytest.mark.parametrize(
    "settings, blocks, reason",
    [
        (dict(alpha=0.5), None, None),
        (dict(alpha=0.5), dict(cache_rate=0.4), None),
        (dict(alpha=0.0), None, "alpha is 0"),
        (dict(alpha=0.5, warmup=20), None, "all 12 calls that may be reused were warm-up"),
        (dict(alpha=1e-6), dict(cache_rate=0.0), "every low-frequency difference reached the threshold"),
        (dict(alpha=0.0), dict(cache_rate=0.0), "BlockCache: cache_rate is 0"),
        (dict(alpha=0.0), dict(start_percent=0.9), "computed calls after start_percent are too few to skip blocks"),
        (dict(alpha=0.0), dict(cache_rate=0.05), "0.05 of 16 blocks is less than one block: raise cache_rate"),
        (None, dict(cache_rate=0.4), None),
    ],
)
def test_the_report_is_valid_and_says_why_nothing_was_reused(bench, settings, blocks, reason):
    model = bench.lfcache(**settings) if settings else bench.model
    model = bench.blockcache(model, **blocks) if blocks else model
    bench.sample(model, steps=12)
    (run,) = checked(bench.report(model))
    assert (run["blockcache"] is not None) == (blocks is not None)
    if reason:
        assert run["reused"] == 0 and any(reason in warning for warning in run["warnings"])
    elif settings:
        assert run["reused"] > 0 and run["warnings"] == []


def test_the_report_of_an_interrupted_or_failed_run_is_valid_and_says_so(bench):
    from comfy.model_management import InterruptProcessingException

    for error, text in (
        (InterruptProcessingException(), "was interrupted after"),
        (ValueError("no"), "failed with ValueError after"),
    ):
        model = bench.lfcache(alpha=0.5)
        calls = []

        def callback(step, *_, error=error, calls=calls):
            calls.append(step)
            if step == 5:
                raise error

        with pytest.raises(type(error)):
            bench.sample(model, steps=12, callback=callback)
        (run,) = checked(bench.report(model))
        assert run["calls"] == 6 and f"the run {text} 6 calls" in run["warnings"]


def test_answers_that_are_not_finite_are_null_in_the_report(bench):
    model = bench.lfcache(alpha=0.5)
    noise = bench.noise()
    noise[0, 0, 0, 0, 0] = math.nan
    bench.sample(model, steps=12, noise=noise)
    (run,) = checked(bench.report(model))
    assert run["reused"] == 0 and run["warnings"]


SECONDS = 60  # how long the slowest machine may take to send an event


class Clock:
    """A clock that advances by a hundredth of a second at each reading, however fast the machine is."""

    def __init__(self):
        self.now = time.perf_counter()

    def read(self):
        self.now += 0.01
        return self.now


CLOCK = Clock()  # one for all tests, because the least distance between events holds across runs


class FakeServer:
    """The parts of ComfyUI's server that events use; it lists what was sent, when and to whom."""

    client_id = "someone"

    def __init__(self):
        self.sent = []
        self.loop = SimpleNamespace(call_soon_threadsafe=lambda call, *args: call(*args), call_later=self._later)

    def send_sync(self, event, data, sid, delay=0.0):
        self.sent.append((CLOCK.now + delay, event, data, sid))

    def _later(self, delay, call, *args):
        call(*args, delay=delay)


@pytest.fixture
def server(monkeypatch):
    server = FakeServer()
    monkeypatch.setattr(events, "THROTTLE", Throttle(events.INTERVAL, CLOCK.read))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    return server


def test_events_are_few_small_and_complete(bench, server):
    model = attach(bench.model, "7", lfcache=bench.config(alpha=0.5))
    model = attach(model, "8", blockcache=bench.block_config())
    for _ in range(3):
        bench.sample(model, steps=40)
    times, events, data, sids = zip(*server.sent)
    assert set(events) == {"precisecache.calls"} and set(sids) == {"someone"}
    assert all(b - a > 0.0999 for a, b in zip(times, times[1:]))
    assert 6 < len(times) < 3 * 40  # several calls per event
    assert len({d["run"] for d in data}) == 3 and sum(d["is_ended"] for d in data) == 3
    run = bench.report(model)
    last = [d for d in data if d["run"] == data[-1]["run"]]
    assert "".join(d["decisions"] for d in last) == run["decisions"]
    lfds = [v for d in last for v in d["lfd"]]
    assert [v is None for v in lfds] == [v is None for v in run["lfd"]]
    assert [v for v in lfds if v is not None] == pytest.approx([v for v in run["lfd"] if v is not None], rel=1e-3)
    assert {k: last[-1][k] for k in ("calls", "computed", "reused", "trials", "model", "steps")} == {
        k: run[k] for k in ("calls", "computed", "reused", "trials", "model", "steps")
    }
    assert last[-1]["blocks"] == {k: run["blockcache"][k] for k in ("block_calls", "block_calls_skipped")}
    assert last[-1]["nodes"] == ["7", "8"] and last[-1]["cache_bytes"] > 0


@pytest.mark.parametrize("settings", [dict(share=0.4), dict(share=0.4, factor_t=1, factor_hw=1), dict(alpha=0.5)])
def test_events_tell_the_plan(bench, server, settings):
    model = attach(bench.model, "7", lfcache=bench.config(**settings))
    bench.sample(model, steps=20)
    (run,) = checked(bench.report(model))
    plan = run["plan"] and {name: run["plan"][name] for name in ("budget", "steps")}
    assert plan == ({"budget": 8, "steps": 20} if "share" in settings else None)
    assert server.sent
    for _, _, data, _ in server.sent:
        EVENT_SCHEMA.validate(data)
        assert data["plan"] == plan


def test_an_event_is_never_longer_than_two_kilobytes(server):
    run = CachedRun(None, None, FLOW_MODEL, 3000, name="M" * 5000)
    journal = run.journal

    def told(*calls, prompt_id="p", warnings=()):
        """The last event after these calls, or None if none was sent."""
        journal.calls += calls
        journal.warnings[:] = warnings
        feed.page = Page(server, prompt_id, ["x" * 60] * 16, ["y" * 60])
        before = len(server.sent)
        feed.tell(is_ended=True)
        return server.sent[-1] if len(server.sent) > before else (None, None, None, None)

    feed = CallFeed(run, Page(server), Throttle(events.INTERVAL, CLOCK.read))
    _, event, data, _ = told(*[CallRecord("R", 0.5, 1.23456789e-5)] * 3000)
    assert len(json.dumps({"type": event, "data": data})) <= 2048
    assert data["calls"] == 3000 and data["first"] + len(data["decisions"]) == 3000 and len(data["lfd"]) > 10
    last = CallRecord("C", 0.5, None)
    assert told(last, warnings=["\u4e2d" * 500] * 9)[2]["warnings"] == []  # six bytes per character in JSON
    feed.page = Page(server)
    assert told(last, warnings=["w" * 500] * 9)[2]["warnings"] in ([], ["w" * 200] * 3)
    assert told(last, prompt_id="p" * 5000) == (None, None, None, None)  # a client may choose the id


def test_a_server_that_has_ended_stops_the_events_but_not_the_run(bench, server, monkeypatch):
    def closed(*_):
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(server, "send_sync", closed)
    model = bench.lfcache(alpha=0.5)
    assert torch.isfinite(bench.sample(model, steps=12)).all()
    assert bench.report(model)["calls"] == 12


def test_fingerprints_and_the_cache_stats_of_a_node():
    graph = load_flash()
    stats, sampler, lfcache, blocks = (
        only_node(graph, kind)
        for kind in ("PreciseCacheStats", "KSampler", "PreciseCacheLFCache", "PreciseCacheBlockCache")
    )
    prompt = Prompt("a", sampler, graph)
    assert prompt.stats_of(blocks) == [stats] and prompt.stats_of(lfcache) == []
    renamed = json.loads(json.dumps(graph).replace(f'"{sampler}"', '"77"'))
    assert Prompt("b", "77", renamed).fingerprint("77") == prompt.fingerprint(sampler) != ""
    set_inputs(renamed, "PreciseCacheTinyModel", subject="disc")
    assert Prompt("b", "77", renamed).fingerprint("77") != prompt.fingerprint(sampler)
    assert prompt.fingerprint("no such node") == "" and prompt.upstream("no such node") == []
    assert Prompt.current().id == ""


def test_a_sampler_that_runs_again_finds_no_run_of_its_own(bench, monkeypatch):
    """Otherwise a stage that adds no noise would calibrate on its own earlier run and decide differently."""
    graph = load_flash()
    stats, sampler = only_node(graph, "PreciseCacheStats"), only_node(graph, "KSampler")

    def asking(prompt_id, node):
        monkeypatch.setattr(Prompt, "current", classmethod(lambda cls: cls(prompt_id, node, graph)))

    asking("first", sampler)
    bench.reports.record("again", {"number": 1})
    asking("second", sampler)
    assert bench.reports.runs_of("again") == []
    asking("second", stats)  # the sampler did not run: its result came from ComfyUI's cache
    assert bench.reports.runs_of("again") == [{"number": 1}]


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory):
    """A ComfyUI that reuses the results of unchanged nodes, as by default."""
    with ComfyServer(find_host(), tmp_path_factory.mktemp("server") / "comfyui.log", cached_nodes=100) as server:
        yield server


def small(seed=0):
    graph = load_flash()
    set_inputs(graph, "EmptyHunyuanLatentVideo", width=64, height=64, length=5)
    set_inputs(graph, "KSampler", steps=16, seed=seed)
    return graph


def calls_told(events):
    """The data of the events precisecache.calls."""
    return [json.loads(text)["data"] for text in events if json.loads(text)["type"] == "precisecache.calls"]


def queue(server, *graphs):
    """({Cache Stats node: runs}, [event text]) for each of the graphs, which run one after another."""

    async def run():
        found, events = [], []
        async with ComfyClient(server, events.append) as client:
            for graph in graphs:
                events.clear()
                outputs, _ = await client.run(graph)
                # a run's last event may come after the end of its prompt
                while (told := calls_told(events)) and not told[-1]["is_ended"]:
                    events.append(await client.socket.receive_str(timeout=SECONDS))
                found.append(
                    (
                        {
                            node: checked(*output["precisecache"][0]["runs"])
                            for node, output in outputs.items()
                            if "precisecache" in output
                        },
                        list(events),
                    )
                )
        return found

    return asyncio.run(run())


STATS, SAMPLER = only_node(small(), "PreciseCacheStats"), only_node(small(), "KSampler")


def test_a_result_from_comfyuis_cache_has_the_report_of_the_run_that_made_it(comfyui):
    late = small(seed=1)
    late["90"] = {"class_type": "PreciseCacheStats", "inputs": dict(late[STATS]["inputs"])}
    graphs = small(seed=1), small(seed=2), small(seed=1), late
    first, second, again, later = (found for found, _ in queue(comfyui, *graphs))
    assert len(first[STATS]) == len(second[STATS]) == 1
    assert first[STATS] != second[STATS]  # the seconds differ at least
    assert again[STATS] == first[STATS]
    assert later["90"] == first[STATS], "not the run of the earlier prompt"


def test_a_model_sampled_twice_has_two_runs_even_if_one_comes_from_the_cache(comfyui):
    def twice(seed):
        graph = small(seed=5)
        graph["80"] = {
            "class_type": "KSampler",
            "inputs": {
                **graph[SAMPLER]["inputs"],
                "latent_image": [SAMPLER, 0],
                "seed": seed,
                "denoise": 0.6,
                "steps": 20,
            },
        }
        graph[STATS]["inputs"]["samples"] = ["80", 0]
        return graph

    (before, _), (after, _) = queue(comfyui, twice(1), twice(2))
    assert [run["steps"] for run in before[STATS]] == [16, 20]
    assert after[STATS][0] == before[STATS][0] and after[STATS][1] != before[STATS][1]
    assert after[STATS][1]["steps"] == 20


def test_two_equal_nodes_have_a_report_each(comfyui):
    graph = small(seed=7)
    lfcache, blocks = (only_node(graph, kind) for kind in ("PreciseCacheLFCache", "PreciseCacheBlockCache"))
    ids = {lfcache: "60", blocks: "61", SAMPLER: "62", STATS: "63"}
    for old, new in ids.items():
        inputs = {
            name: [ids.get(value[0], value[0]), value[1]] if isinstance(value, list) else value
            for name, value in graph[old]["inputs"].items()
        }
        graph[new] = {"class_type": graph[old]["class_type"], "inputs": inputs}
    graph["62"]["inputs"]["steps"] = 24
    ((found, events),) = queue(comfyui, graph)
    assert {node: [run["steps"] for run in runs] for node, runs in found.items()} == {STATS: [16], "63": [24]}
    assert {(d["steps"], *d["stats"], *d["nodes"]) for d in calls_told(events)} == {
        (16, STATS, lfcache, blocks),
        (24, "63", "60", "61"),
    }


def test_events_reach_a_program_on_the_websocket(comfyui):
    graph = small(seed=9)
    set_inputs(graph, "KSampler", steps=60)
    ((found, events),) = queue(comfyui, graph)
    (run,) = found[STATS]
    assert max(len(text) for text in events if '"precisecache.calls"' in text) <= 2048
    data = calls_told(events)
    assert 0 < len(data) <= 10 * run["seconds"]["sampling"] + 2  # a fast machine sends few
    assert "".join(d["decisions"] for d in data) == run["decisions"] and data[-1]["is_ended"]
    assert data[-1]["stats"] == [STATS]
