"""The command `python3 tests/gpu`: what it installs, how it divides its time, and what it packs."""

import importlib.util
import sys
import tarfile
from types import SimpleNamespace

import pytest

from testkit.tiny_host import ROOT

GPU = ROOT / "tests" / "gpu"


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"gpu_{name.strip('_')}", GPU / f"{name}.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def command():
    path = list(sys.path)
    try:
        yield loaded("__main__")
    finally:
        sys.path[:] = path


@pytest.fixture(scope="module")
def pack():
    return loaded("pack")


def test_only_wheels_of_missing_packages_are_installed(command, tmp_path):
    for name in ("comfy_kitchen-0.2-py3-none-any.whl", "PyYAML-6.0-cp312-cp312-linux_x86_64.whl"):
        (tmp_path / name).touch()
    missing = command.wheels_missing(tmp_path, {"pyyaml"})
    assert [wheel.name for wheel in missing] == ["comfy_kitchen-0.2-py3-none-any.whl"]


def parts_run(command, monkeypatch, outcomes, seconds=100, gpu="H100"):
    """{name: result as text} of parts that would end with `outcomes`, {name: (exit status, seconds)}."""
    clock = SimpleNamespace(now=0)
    monkeypatch.setattr(command.time, "monotonic", lambda: clock.now)

    def run_part(part, limit, environment, log):
        status, takes = outcomes[part.name]
        clock.now += min(takes, limit)
        return (None if takes > limit else status), min(takes, limit)

    monkeypatch.setattr(command, "run_part", run_part)
    monkeypatch.setattr(
        command,
        "parts",
        lambda out, options: [
            command.Part("one", [], 60),
            command.Part("two", [], 60),
            command.Part("three", [], 60, needs_gpu=True),
        ],
    )
    return command.run_parts(SimpleNamespace(only=None, expression=None, seconds=seconds), "", gpu, 0, {}, None)


def test_parts_share_the_time_and_a_part_that_did_not_run_is_named(command, monkeypatch):
    results = parts_run(command, monkeypatch, {"one": (0, 500), "two": (0, 35)})
    assert results == {"one": "CUT SHORT in 60 s", "two": "passed in 35 s", "three": "not run: 5 of 100 s were left"}


def test_without_a_gpu_a_part_says_that_it_needs_one(command, monkeypatch):
    results = parts_run(command, monkeypatch, {"one": (0, 1), "two": (1, 1)}, gpu=None)
    assert results == {
        "one": "passed in 1 s",
        "two": "FAILED with exit status 1 in 1 s",
        "three": "not run: needs a GPU",
    }


def test_a_part_at_its_limit_is_ended_with_its_children(command, tmp_path, monkeypatch):
    """The limit is reached when the part's child has begun, however slow the machine is."""

    class Timer:
        def __init__(self, limit, stop):
            reach_limit.append(stop)

        def start(self):
            pass

        cancel = start

    class Log(command.Log):
        def say(self, text):
            super().say(text)
            if text == "begun":
                reach_limit[0]()

    reach_limit = []
    monkeypatch.setattr(command.threading, "Timer", Timer)
    child = "import time; print('begun', flush=True); time.sleep(100)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    log = Log()
    log.keep_in(tmp_path / "log.txt")
    status, seconds = command.run_part(command.Part("hangs", ["-c", code], 9), 9, dict(command.os.environ), log)
    assert status is None and seconds < 100, "the child went on and held the pipe open"
    assert "begun" in log.lines and "begun" in (tmp_path / "log.txt").read_text()


def test_a_log_file_is_named_after_the_gpu(command):
    assert command.label("NVIDIA H100 80GB HBM3") == "NVIDIA_H100_80GB_HBM3" and command.label(None) == "no_GPU"


def test_packages_that_the_other_machine_has_are_not_packed(pack):
    everything = pack.closure(["pytest"], set())
    assert {"pytest", "pluggy", "iniconfig"} <= everything.keys()
    assert "pluggy" not in pack.closure(["pytest"], {"pluggy"})
    assert pack.closure(["torch", "torchvision"], pack.TORCH) == {}


def test_lists_of_packages_are_read_in_either_form(pack, tmp_path):
    file = tmp_path / "have.txt"
    file.write_text("# a comment\nPyYAML==6.0\nscikit_image>=0.2\nnumpy, torch\n")
    assert pack.names_in(file) == {"pyyaml", "scikit-image", "numpy", "torch"}


def test_source_is_copied_without_the_models_folder_but_with_modules_named_models(pack, tmp_path):
    host = tmp_path / "host"
    for file in (
        "main.py",
        "models/big.py",
        "comfy/ldm/models/vae.py",
        "comfy/sd1_tokenizer/vocab.json",
        ".git/HEAD",
        "comfy/__pycache__/sd.pyc",
    ):
        (host / file).parent.mkdir(parents=True, exist_ok=True)
        (host / file).touch()
    with tarfile.open(pack.archive_source(host, tmp_path / "copy")) as archive:
        copied = {member.name for member in archive if member.isfile()}
    assert copied == {"ComfyUI/main.py", "ComfyUI/comfy/ldm/models/vae.py"}
