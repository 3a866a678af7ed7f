"""run.py: what each command runs, in which order, and with which exit status."""

import os
import re
import subprocess
import sys
import time

import pytest

import run
from tools import commands
from tools.demo.options import STARTED
from tools.environment import VERBOSE, is_verbose


@pytest.fixture
def started(monkeypatch):
    """The commands that would be started, with their environment variables; nothing is set up."""
    calls = []
    monkeypatch.setattr(commands, "set_up", lambda host, is_renewed=False: None)
    monkeypatch.setattr(
        commands, "run", lambda command, environment, folder=None: calls.append((command[1:], environment)) or 0
    )
    return calls


def test_an_unknown_command_is_named_and_help_lists_the_commands(capsys):
    assert run.main(["fly"]) == 2
    said = capsys.readouterr()
    assert "no command 'fly'" in said.err
    assert all(f"run.py {name} " in said.out for name in commands.COMMANDS)
    assert run.main([]) == 2 and run.main(["--help"]) == 0


def test_bench_lists_every_benchmark_with_a_description_without_setup(capsys, monkeypatch):
    monkeypatch.setattr(commands, "set_up", None)
    assert run.main(["bench"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"frontier", "memory", "step_impact", "calibrate", "compatibility"} <= set(names)
    assert all(len(line.split()) > 3 and "`" not in line for line in lines) and "__init__" not in names


@pytest.mark.parametrize(
    "name, module",
    [
        ("frontier", "benchmarks.tables.frontier"),
        ("step_impact", "benchmarks.figures.step_impact"),
        ("calibrate", "benchmarks.peers.calibrate"),
        ("compatibility", "compatibility"),
    ],
)
def test_bench_runs_the_module_of_that_name(started, name, module):
    assert run.main(["bench", name, "--clips", "2"]) == 0
    ((command, _),) = started
    assert command == ["-m", module, "--clips", "2"]


def test_an_unknown_benchmark_is_refused_with_the_known_ones(started, capsys):
    assert run.main(["bench", "frontiers"]) == 1
    assert "'frontiers'; choose from " in capsys.readouterr().err and not started


def test_bench_compatibility_starts(monkeypatch, capfd):
    monkeypatch.setattr(commands, "VENV_PYTHON", sys.executable)
    monkeypatch.setattr(commands, "set_up", lambda host, is_renewed: None)
    assert run.main(["bench", "compatibility", "--help"]) == 0
    assert "parts of cells' names" in capfd.readouterr().out


def test_graph_reads_paths_relative_to_the_callers_folder(monkeypatch, tmp_path, capfd):
    (tmp_path / "mine.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "VENV_PYTHON", sys.executable)
    monkeypatch.setattr(commands, "set_up", lambda host, is_renewed: None)
    assert run.main(["graph", "mine.json"]) == 2
    assert "graph: this is not a graph in ComfyUI's API format" in capfd.readouterr().err


def test_graph_and_demo_refuse_wrong_options_before_any_setup(monkeypatch):
    monkeypatch.setattr(commands, "set_up", None)
    for arguments in (
        ["graph"],
        ["graph", "a.json", "--comfyui", "no-such-folder"],
        ["demo", "--steps", "0"],
        ["versions", "--all"],
    ):
        with pytest.raises(SystemExit) as stop:
            run.main(arguments)
        assert stop.value.code == 2


def test_the_demo_knows_when_the_command_was_started(started, monkeypatch):
    before = time.time()
    monkeypatch.setattr(commands, "set_up", lambda host, is_renewed=False: times.append(time.time()))
    times = []
    assert run.main(["demo", "--embedded"]) == 0
    assert before <= float(started[0][1][STARTED]) <= times[0]  # before the set-up


def test_verbose_stands_before_the_command(started, monkeypatch):
    monkeypatch.setenv(VERBOSE, "")
    assert run.main(["test", "-v"]) == 0 and not is_verbose()  # pytest's own
    assert run.main(["--verbose", "test"]) == 0 and is_verbose()
    assert started[0][0][-1] == "-v" and "--verbose" not in started[1][0]


def test_paths_among_the_pytest_arguments_replace_the_whole_suite(started):
    run.main(["test", "tests/core", "-q"])
    run.main(["test", "-k", "reuse"])
    (some, environment), (whole, _) = started
    assert some[-2:] == ["tests/core", "-q"] and "tests" not in some[6:]
    assert "tests" in whole[6:] and whole[-2:] == ["-k", "reuse"] and environment["OMP_NUM_THREADS"]


def test_check_lints_formats_types_and_tests_in_this_order(started):
    assert run.main(["check", "-q"]) == 0
    assert [command[1] for command, _ in started] == ["ruff", "ruff", "tools.typecheck", "pytest"]
    assert "--check" in started[1][0] and started[-1][0][-1] == "-q"


def fake_steps(monkeypatch, *statuses):
    """Replace the steps of `check` by ones that print their number and end with these exit statuses."""
    monkeypatch.setattr(commands, "set_up", lambda host, is_renewed: None)
    monkeypatch.setattr(
        commands,
        "check_steps",
        lambda arguments: [
            [sys.executable, "-c", f"print('step {number}'); raise SystemExit({status})"]
            for number, status in enumerate(statuses)
        ],
    )


@pytest.mark.parametrize("statuses, status", [((0, 0, 0), 0), ((3, 0, 0), 3), ((0, 0, 1), 1), ((0, 2, 5), 2)])
def test_check_runs_every_step_and_fails_if_one_failed(monkeypatch, capfd, statuses, status):
    fake_steps(monkeypatch, *statuses)
    assert run.main(["check"]) == status
    lines = capfd.readouterr().out.splitlines()
    steps = [line for line in lines if line.startswith("step")]
    assert steps == ["step 0", "step 1", "step 2"] and sum("$ python -c" in line for line in lines) == 3
    assert [line for line in lines if "failed with" in line] == [
        f"[run.py] failed with exit status {s}" for s in statuses[:-1] if s
    ]
    assert lines[-1] == "step 2"  # the tests' own last line


def test_check_ends_at_the_step_that_was_interrupted(monkeypatch, capfd):
    fake_steps(monkeypatch, 130, 0)
    assert run.main(["check"]) == 130
    assert "step 1" not in capfd.readouterr().out


def test_the_steps_get_the_comfyui_that_was_found(started, monkeypatch, tmp_path):
    (tmp_path / "comfy").mkdir()
    for name in ("main.py", "comfy/samplers.py", "requirements.txt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("COMFYUI_PATH", os.path.relpath(tmp_path))
    run.main(["test"])
    assert started[0][1]["COMFYUI_PATH"] == str(tmp_path)


def test_the_tests_say_what_they_skipped_and_why(host, monkeypatch):
    monkeypatch.delenv("RAYLIGHT_PATH", raising=False)
    command = [str(part) for part in commands.pytest_command(["tests/multigpu", "-q", "-p", "no:cacheprovider"])]
    command[0] = sys.executable
    ended = subprocess.run(command, cwd=commands.ROOT, capture_output=True, text=True)
    *_, said, last = ended.stdout.splitlines()
    assert re.fullmatch(r"skipped: \d+ tests: RAYLIGHT_PATH is not set to a checkout of Raylight .*", said), (
        ended.stdout
    )
    assert re.match(r"\d+ skipped in ", last)
