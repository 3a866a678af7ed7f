"""What the graph runner prints while a graph runs: the last line of each sampler is the final one."""

import io
import json

import pytest

from tools.graph.progress import Progress


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


SAMPLER = {"4": {"class_type": "KSampler", "inputs": {}}, "5": {"class_type": "VAEDecode", "inputs": {}}}


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        """The lines that stay on the screen."""
        return [line.split("\r\x1b[K")[-1] for line in self.getvalue().split("\n")[:-1]]


class File(io.StringIO):
    def lines(self):
        return self.getvalue().splitlines()


@pytest.fixture(params=[Terminal, File])
def out(request):
    return request.param()


def tell(progress, kind, **data):
    progress.take(json.dumps({"type": kind, "data": data}))


def run_of(id="a", calls=20, reused=12, **more):
    numbers = {"calls": calls, "computed": calls - reused, "reused": reused}
    return {"run": id, "sampler": "4", "model": "WAN21", "warnings": [], **numbers, **more}


def sample(progress, id="a", seen=15):
    """The events of a sampler up to its last step, with those of its calls up to `seen`."""
    tell(progress, "executing", node="4")
    for value in range(1, 21):
        if value <= seen:
            tell(progress, "precisecache.calls", **run_of(id, value, value // 2), is_ended=False)
        tell(progress, "progress", node="4", value=value, max=20)


def steps(out):
    return [line for line in out.lines() if line.startswith("KSampler:")]


def test_the_last_line_of_a_sampler_has_the_counts_of_the_last_event(out):
    progress = Progress(SAMPLER, out)
    sample(progress)
    tell(progress, "executing", node="5")
    assert progress.is_waiting and not any("20 of 20" in line for line in out.lines())
    tell(progress, "precisecache.calls", **run_of(), is_ended=True)
    assert not progress.is_waiting
    assert out.lines()[-3:] == [
        "VAEDecode",
        "KSampler: 20 of 20, reused 12 of 20 calls",
        "WAN21: 20 calls, 8 computed, 12 reused",
    ]
    progress.results({"6": {"precisecache": [{"runs": [run_of()]}]}})
    progress.end()
    assert len([line for line in out.lines() if "20 of 20" in line]) == 1 and len(progress.runs) == 1


def test_without_the_last_event_the_report_has_the_counts(out):
    progress = Progress(SAMPLER, out)
    sample(progress)
    progress.results({"6": {"precisecache": [{"runs": [run_of()]}]}})
    progress.end()
    assert steps(out)[-1] == "KSampler: 20 of 20, reused 12 of 20 calls" and not progress.is_waiting


def test_without_event_and_report_the_last_line_has_no_old_counts(out):
    progress = Progress(SAMPLER, out)
    sample(progress)
    progress.results({})
    assert progress.is_waiting
    progress.end()
    assert steps(out)[-1] == "KSampler: 20 of 20"


def test_a_sampler_that_ends_early_shows_its_last_step(out):
    progress = Progress(SAMPLER, out)
    tell(progress, "executing", node="4")
    for value in range(1, 38):
        tell(progress, "progress", node="4", value=value, max=100)
    tell(progress, "executing", node="5")
    assert out.lines()[-2:] == ["KSampler: 37 of 100", "VAEDecode"]


def test_a_prompt_that_fails_shows_its_last_step_once(out):
    progress = Progress(SAMPLER, out)
    tell(progress, "executing", node="4")
    for value in (1, 2, 10):
        tell(progress, "progress", node="4", value=value, max=100)
    progress.end()
    assert steps(out).count("KSampler: 10 of 100") == 1 and out.lines()[-1] == "KSampler: 10 of 100"


def test_a_late_event_of_one_sampler_is_not_shown_for_the_next(out):
    graph = {**SAMPLER, "7": {"class_type": "Second", "inputs": {}}}
    progress = Progress(graph, out)
    sample(progress)
    tell(progress, "executing", node="7")
    tell(progress, "progress", node="7", value=1, max=2)
    tell(progress, "precisecache.calls", **run_of(), is_ended=True)
    tell(progress, "progress", node="7", value=2, max=2)
    assert steps(out)[-1] == "KSampler: 20 of 20, reused 12 of 20 calls" and out.lines()[-1] == "Second: 2 of 2"


def test_a_node_that_samples_twice_shows_each_runs_own_counts(out):
    progress = Progress(SAMPLER, out)
    sample(progress)
    tell(progress, "progress", node="4", value=1, max=20)
    tell(progress, "precisecache.calls", **run_of(), is_ended=True)
    for value in range(2, 21):
        tell(progress, "progress", node="4", value=value, max=20)
    assert steps(out)[-1] == "KSampler: 20 of 20"  # no event has told of the second run
    assert steps(out).count("KSampler: 20 of 20, reused 12 of 20 calls") == 1
    assert not [line for line in steps(out) if "20 of 20" not in line and "12 of 20 calls" in line]


def test_a_run_whose_result_comfyui_kept_is_not_counted_again():
    out = File()
    progress = Progress(SAMPLER, out)
    tell(progress, "execution_cached", nodes=["6"])
    progress.results({"6": {"precisecache": [{"runs": [run_of()]}]}})
    assert progress.runs == {} and out.lines() == [
        "WAN21: 20 calls, 8 computed, 12 reused (in an earlier prompt: ComfyUI kept the result)"
    ]


def test_a_node_that_another_one_added_has_that_ones_name(out):
    progress = Progress(SAMPLER, out)
    tell(progress, "executing", node="4.0.0.1", display_node="4")
    tell(progress, "progress", node="4.0.0.1", value=3, max=3)
    assert out.lines() == ["KSampler", "KSampler: 3 of 3"]
