"""The tested versions: this environment has them, and a new environment gets them."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.tiny_host import find_host
from tools import environment, versions

# not by importing or finding it: pip then keeps setuptools from replacing distutils, which inductor needs
if not list(importlib.metadata.distributions(name="pip")):
    pytest.skip("pip is not installed", allow_module_level=True)
ASKED = versions.host_requirements(find_host())


def test_requirements_of_pyproject_hold_every_extra_the_commands_need():
    wanted = versions.own_requirements()
    assert {"torch", "numpy", "einops", "safetensors", "matplotlib", "aiohttp", "pytest", "ruff", "mypy"} <= set(wanted)
    assert not any(entry.startswith("precisecache") for entry in wanted)


def test_this_environment_has_the_tested_versions():
    if Path(sys.prefix).resolve() != environment.VENV.resolve():
        pytest.skip(f"the tests run in {sys.prefix}, which run.py did not make")
    assert versions.differences(ASKED) == []


def share_torch(python):
    """Let the new environment have this one's torch, as one made on a machine with torch would; metadata suffice."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    target = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    for distribution in importlib.metadata.distributions():
        if versions.TORCH.match(name := versions.canonical(distribution.metadata["Name"])) and name != "setuptools":
            metadata = next(file for file in distribution.files if file.name == "METADATA").locate()
            (target / metadata.parent.name).mkdir()
            shutil.copy(metadata, target / metadata.parent.name)


def test_a_new_environment_gets_the_tested_versions(tmp_path, monkeypatch):
    """run.py's own set-up of a new .venv; pip resolves everything from its index and installs nothing."""
    report, pip_command = tmp_path / "report.json", environment.pip_command
    python = tmp_path / environment.VENV_PYTHON.relative_to(environment.ROOT)

    def make_venv():
        subprocess.run([sys.executable, "-m", "venv", environment.VENV], check=True)
        # the newest pip downloads only the packages' metadata
        newest = subprocess.run(
            [python, "-m", "pip", "install", "--upgrade", "--force-reinstall", "--retries", "0", "pip"],
            capture_output=True,
            text=True,
        )
        if newest.returncode:
            pytest.skip(f"pip reaches no index: {newest.stderr.strip().splitlines()[-1]}")
        share_torch(python)

    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "VENV_PYTHON", python)
    monkeypatch.setattr(environment, "STAMP", tmp_path / "stamp.txt")
    monkeypatch.setattr(environment, "LOG", tmp_path / "pip.log")
    monkeypatch.setattr(environment, "make_venv", make_venv)
    monkeypatch.setattr(environment, "torch_fits", lambda: True)  # it is not really installed there
    monkeypatch.setattr(
        environment,
        "pip_command",
        lambda *given: [*pip_command(*given), "--quiet", "--dry-run", "--report", str(report)],
    )
    monkeypatch.delenv("RAYLIGHT_PATH", raising=False)  # what Raylight needs is not pinned
    environment.set_up(find_host())

    found = {
        versions.canonical(item["metadata"]["name"]): item["metadata"]["version"]
        for item in json.loads(report.read_text("utf-8"))["install"]
    }
    held = versions.read(versions.tested_file())
    left = versions.left_out(held, ASKED, versions.torch_here())
    needed = versions.installed([*versions.own_requirements(), *ASKED])
    expected = {
        name: version
        for name, version in held.items()
        if name in needed and name not in left and not versions.TORCH.match(name)
    }
    assert len(expected) > 50 and "torch" not in found
    assert {
        name: version
        for name, version in found.items()
        if name in held and name not in left and not versions.TORCH.match(name)
    } == expected
    if not left:
        assert found.keys() <= held.keys()


def test_a_difference_of_each_kind_is_found(monkeypatch):
    held = versions.read(versions.tested_file())
    torch = versions.torch_here()
    held["torch"] = torch
    before = set(versions.differences(ASKED))
    changed = {**held, "einops": "0.0.1", "made-up": "1.0"}
    del changed["numpy"]
    monkeypatch.setattr(versions, "read", lambda path: changed)
    found = set(versions.differences(["einops"])) - before
    numpy, einops = (importlib.metadata.version(name) for name in ("numpy", "einops"))
    assert found >= {
        f"einops {einops} is installed, 0.0.1 was tested",
        f"numpy {numpy} is installed, no version was tested",
        "made-up 1.0 was tested, none is installed",
    }


HELD = {
    "torch": "2.11.0",
    "triton": "3.6.0",
    "numpy": "2.4.6",
    "comfyui-workflow-templates": "0.11.44",
    "comfyui-workflow-templates-core": "0.3.315",
    "pydantic": "2.14.4",
}


@pytest.mark.parametrize(
    "asked, torch, left",
    [
        (["numpy>=1.25.0  # a comment", "pydantic~=2.0", "--extra-index-url x", "torch"], "2.11.0", set()),
        (["comfyui-workflow-templates==0.1"], None, {"comfyui-workflow-templates", "comfyui-workflow-templates-core"}),
        (["Pydantic<2"], None, {"pydantic"}),
        (["numpy<2; python_version < '3'"], None, set()),
        (["torch>=3"], None, {"torch", "triton"}),
        ([], "2.5.1", {"torch", "triton"}),
    ],
)
def test_versions_that_comfyui_or_the_machine_contradicts_are_not_held(asked, torch, left):
    reasons = versions.left_out(HELD, asked, torch)
    assert reasons.keys() == left
    assert all((asked[0] if asked else torch) in reason for reason in reasons.values())


def test_an_installed_torch_is_kept_with_a_torchaudio_that_fits(monkeypatch):
    monkeypatch.setattr(versions, "read", lambda path: HELD)
    monkeypatch.setattr(versions, "torch_here", lambda: "2.12.1")
    kept = versions.constraints()
    assert {"torch==2.12.1", "torchaudio<2.13", "numpy==2.4.6"} <= set(kept) and "triton==3.6.0" not in kept
    assert {"torch==2.11.0", "triton==3.6.0"} <= set(versions.constraints(is_torch_kept=False))
    monkeypatch.setattr(versions, "torch_here", lambda: None)
    assert versions.constraints(is_held=False) == ["torch==2.11.0", "triton==3.6.0"]


@pytest.mark.parametrize("minor, name", [(10, "python3.10.txt"), (12, "python3.12.txt"), (99, "python3.12.txt")])
def test_each_python_has_the_versions_tested_with_it_or_the_newest(minor, name):
    assert versions.tested_file((3, minor)).name == name


def test_every_line_holds_one_version():
    for path in versions.FOLDER.iterdir():
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
        assert lines and all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines), path


def test_writing_gives_the_kept_file(tmp_path, monkeypatch):
    kept = versions.read(versions.tested_file())
    if find_host() is None or versions.differences(ASKED) or versions.left_out(kept, ASKED, versions.torch_here()):
        pytest.skip("the file is made in .venv, with the ComfyUI that its header names")
    monkeypatch.setattr(versions, "FOLDER", tmp_path)
    assert versions.read(versions.write(find_host())) == kept
