"""Reports and events are valid by their schemas, and describe the same runs."""

import asyncio
import json

import pytest
from jsonschema import Draft202012Validator

from precisecache_core import build_report, dump_report
from testkit.tiny_host import ROOT, find_host
from tools.comfyui.client import ComfyClient
from tools.comfyui.server import ComfyServer
from tools.graph.shipped import load_flash, only_node, set_inputs

SCHEMAS = {
    name: json.loads((ROOT / "precisecache_core" / "record" / f"{name}.schema.json").read_text("utf-8"))
    for name in ("report", "event")
}
LFCACHE, BLOCKCACHE, STATS = (
    only_node(load_flash(), kind) for kind in ("PreciseCacheLFCache", "PreciseCacheBlockCache", "PreciseCacheStats")
)


def exact(schema):
    """The stricter schema of what this version writes: at any depth, no fields but the named ones."""
    if isinstance(schema, list):
        return [exact(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: exact(part) for name, part in schema.items()}
    return {**parts, "additionalProperties": False} if schema.get("type") == "object" else parts


NEWER = {
    "label",
    "expectation",
    "other_cache",
    "corrections",
    "plan",
    "reasons",
    "sampler",
    "speedup",
    "saved_seconds",
    "standing_aside",
}  # optional in a report, because earlier ones lack them

READER = {name: Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
WRITER = {name: Draft202012Validator(exact(schema)) for name, schema in SCHEMAS.items()}


def small(**inputs):
    graph = load_flash()
    set_inputs(graph, "EmptyHunyuanLatentVideo", width=64, height=64, length=5)
    set_inputs(graph, "KSampler", **inputs)
    return graph


def with_two_samplers():
    """The graph with a second KSampler after the first, on the same MODEL, and a second, equal Cache Stats."""
    graph = small(steps=30, seed=31)
    sampler = only_node(graph, "KSampler")
    inputs = {**graph[sampler]["inputs"], "latent_image": [sampler, 0], "denoise": 0.5}
    graph["80"] = {"class_type": "KSampler", "inputs": inputs}
    graph[STATS]["inputs"]["samples"] = ["80", 0]
    graph["90"] = graph[STATS]
    return graph


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(events, reports) of a real server for two samplers that ran one after the other, as plain JSON."""

    async def run():
        texts = []
        async with ComfyClient(server, texts.append) as client:
            outputs, _ = await client.run(with_two_samplers())
            while (
                sum('"is_ended": true' in str(text) for text in texts) < 2
            ):  # a last event may come after the prompt's end
                texts.append((await client.socket.receive(timeout=600)).data)
        events = [json.loads(text) for text in texts if isinstance(text, str)]
        return (
            [event["data"] for event in events if event["type"] == "precisecache.calls"],
            {node: output["precisecache"][0] for node, output in outputs.items() if "precisecache" in output},
        )

    with ComfyServer(find_host(), tmp_path_factory.mktemp("server") / "comfyui.log") as server:
        server.wait()
        return asyncio.run(run())


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_valid(name):
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_every_event_and_report_has_exactly_the_known_fields(answers):
    events, reports = answers
    assert len(events) >= 2 and len(reports) == 2
    for event in events:
        WRITER["event"].validate(event)
        assert event["version"] == 2
    for report in reports.values():
        WRITER["report"].validate(report)
        assert report["version"] == 2


def test_events_and_reports_name_the_same_runs_and_nodes(answers):
    events, reports = answers
    runs = reports[STATS]["runs"]
    assert len({run["run"] for run in runs}) == 2 and reports["90"] == reports[STATS]
    assert list(dict.fromkeys(event["run"] for event in events)) == [run["run"] for run in runs]
    for run in runs:
        mine = [event for event in events if event["run"] == run["run"]]
        assert all(event["nodes"] == run["nodes"] == [LFCACHE, BLOCKCACHE] for event in mine)
        assert all(set(event["stats"]) == {STATS, "90"} for event in mine)
        last = mine[-1]
        assert last["is_ended"] and last["calls"] == run["calls"] and last["trials"] == run["trials"]


def test_outside_a_server_a_run_has_an_id_and_no_nodes(bench):
    model = bench.blockcache(bench.lfcache(alpha=0.5))
    for _ in range(2):
        bench.sample(model, steps=8)
    report = json.loads(dump_report(build_report(bench.reports.runs_of(bench.attachment.attachment_of(model).id))))
    WRITER["report"].validate(report)
    assert len({run["run"] for run in report["runs"]}) == len(report["runs"]) == 2
    assert all(run["nodes"] == [] for run in report["runs"])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"run": 5},
        {"run": "0123456789AB"},
        {"run": "0123456789abc"},
        {"nodes": [5]},
        {"nodes": "5"},
        {"nodes": None},
        {"decisions": "CX"},
        {"calls": -1},
        {"warnings": None},
        {"lfd": ["1"]},
    ],
    ids=str,
)
def test_readers_refuse_wrong_fields_and_accept_new_ones(answers, change):
    events, reports = answers
    run = reports[STATS]["runs"][0]
    report = {"version": 2, "runs": [{**run, **change}]} if "version" not in change else {**reports[STATS], **change}
    assert not READER["event"].is_valid({**events[0], **change}) and not READER["report"].is_valid(report)
    for name, known, new in (
        ("event", events[0], {**events[0], "version": 3, "new": 1}),
        ("report", reports[STATS], {"version": 3, "new": 1, "runs": [{**run, "new": {"deep": 1}}]}),
    ):
        assert READER[name].is_valid(new) and not WRITER[name].is_valid(new)
        for field in known:
            assert not READER[name].is_valid({key: value for key, value in known.items() if key != field})
    for field in set(run) - NEWER:
        less = {key: value for key, value in run.items() if key != field}
        assert not READER["report"].is_valid({"version": 2, "runs": [less]})
