"""What run.py's commands do. Standard library only, because they run before anything is installed."""

import ast
import os
import re
import sys
import time
from pathlib import Path

from tools.comfyui.locate import comfyui_version, find_comfyui
from tools.environment import ROOT, VENV_PYTHON, SetupError, run, say, set_up

STOPPED = (130, 143)  # exit statuses after Ctrl+C and SIGTERM


def call(name, arguments):
    """Run a command; returns its exit status."""
    try:
        return COMMANDS[name](arguments)
    except (SetupError, ValueError) as error:
        print(f"\nrun.py: {error}", file=sys.stderr)
        return 1


def demo(arguments):
    started = time.time()
    # a wrong option ends the program here, before any setup
    from tools.demo.options import STARTED, parse

    host = parse(arguments).host
    environment = prepare(host, "the demo samples in plain PyTorch")
    return run([VENV_PYTHON, "-m", "tools.demo", *arguments], {**environment, STARTED: str(started)})


def test(arguments):
    return run(pytest_command(arguments), prepare_tests())


def check(arguments):
    """Run the linter, the formatter, the type checker and then the tests, whose last line is the last one printed."""
    environment = prepare_tests()
    failed = 0
    *steps, tests = check_steps(arguments)
    for command in steps:
        status = run(command, environment)
        if status in STOPPED:
            return status
        if status:
            say(f"failed with exit status {status}")
        failed = failed or status
    status = run(tests, environment)
    return failed or status


def check_steps(arguments):
    return [
        [VENV_PYTHON, "-m", "ruff", "check", "."],
        [VENV_PYTHON, "-m", "ruff", "format", "--check", "."],
        [VENV_PYTHON, "-m", "tools.typecheck"],
        pytest_command(arguments),
    ]


def pytest_command(arguments):
    """The pytest command with these arguments; it runs all tests unless they name some."""
    command = [VENV_PYTHON, "-m", "pytest", "-c", "tests/pytest.ini", "--rootdir", "tests"]
    if not names_tests(arguments):
        # two workers where there are two cores; with more, ComfyUI's memory would be the limit, not the cores
        workers = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]  # tests/conftest.py orders the files
        command += ["tests", *(workers if (os.cpu_count() or 1) > 1 else [])]
    return [*command, *arguments]


def names_tests(arguments):
    """Whether the pytest arguments already say which files to run."""
    return any((ROOT / a.split("::")[0]).exists() for a in arguments if not a.startswith("-"))


def graph(arguments):
    from tools.graph.options import parse

    host = parse(arguments).comfyui or find_comfyui(ROOT)
    environment = add_to_path(ROOT, prepare(host, "the graph needs a running server"))
    # in the caller's folder: the paths of the graph and of --out are relative to it
    return run([VENV_PYTHON, "-m", "tools.graph", *arguments], environment, Path.cwd())


def bench(arguments):
    known = benchmarks()
    if not arguments:
        width = max(map(len, known))
        print(*(f"{name:{width}}  {first_sentence(path)}" for name, path in known.items()), sep="\n")
        return 0
    name, *rest = arguments
    if name not in known:
        raise ValueError(f"there is no benchmark {name!r}; choose from {', '.join(known)}")
    path = known[name].relative_to(ROOT).with_suffix("")
    environment = prepare(find_comfyui(ROOT), "most benchmarks need one")
    module = ".".join(path.parts)
    if name == "compatibility":
        module = name
        environment = add_to_path(ROOT / "tests", environment)
    return run([VENV_PYTHON, "-m", module, *rest], environment)


def add_to_path(folder, environment):
    """The environment variables with this folder first in PYTHONPATH."""
    before = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": os.pathsep.join([str(folder), *([before] if before else [])])}


def benchmarks():
    """{name: file} of every benchmark."""
    files = [
        path
        for folder in ("tables", "figures")
        for path in sorted((ROOT / "benchmarks" / folder).glob("*.py"))
        if path.stem != "__init__"
    ]
    return {
        **{path.stem: path for path in files},
        "calibrate": ROOT / "benchmarks" / "peers" / "calibrate.py",
        "compatibility": ROOT / "tests" / "compatibility" / "__main__.py",
    }


def first_sentence(path):
    """The first line of a module's docstring, without the command at its end."""
    return re.split(":? `python3", ast.get_docstring(ast.parse(path.read_text("utf-8"))))[0]


def versions(arguments):
    from tools.versions import parse

    is_renewed = parse(arguments).update
    return run(
        [VENV_PYTHON, "-m", "tools.versions", *arguments],
        prepare(find_comfyui(ROOT), "its packages are not compared", is_renewed),
    )


COMMANDS = {"demo": demo, "test": test, "check": check, "graph": graph, "bench": bench, "versions": versions}


def prepare(host, without, is_renewed=False):
    """Set up .venv and print what is used; returns the environment variables for the command.

    without: printed where there is no ComfyUI. is_renewed: install the newest versions, not the tested ones.
    """
    say(f"Python {sys.version.split()[0]} at {sys.executable}")
    say(f"ComfyUI {comfyui_version(host)} at {host}" if host else f"no ComfyUI: {without}")
    set_up(host, is_renewed)
    environment = dict(os.environ)
    if host:
        environment["COMFYUI_PATH"] = str(host)
    return environment


def prepare_tests():
    """Set up .venv for the tests; returns the environment variables to run them with."""
    environment = prepare(find_comfyui(ROOT), "tests that need one will be skipped")
    # the tests' tensors are too small to split between cores; threads only slow them down
    environment.setdefault("OMP_NUM_THREADS", "1")
    return environment
