"""Which build of torch is chosen: real pip asks folders and indexes with tiny wheels; nothing is installed."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile

import pytest

from tools import torch_build
from tools.torch_build import TorchBuild, choose, has_gpu, index_options, offered_versions

VERSIONS = {"torch": "9.9.9", "torchvision": "9.24.0", "torchaudio": "9.9.9"}
PINS = ["nvidia-nccl-cu13==2.28.9", "setuptools==65.5.0", *(f"{n}=={v}" for n, v in VERSIONS.items()), "numpy==2.4.6"]


def write_wheel(folder, name, version, tag="py3-none-any"):
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


def write_wheels(folder, *names, is_index=False):
    """A folder of CPU wheels, as an index (a folder for each package) or all in one; returns its address."""
    for name in names:
        place = folder / name if is_index else folder
        write_wheel(place, name, f"{VERSIONS[name]}+cpu")
        if is_index:
            links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in place.glob("*.whl"))
            (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return folder.as_uri()


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A function that asks a pip that knows an empty index and nothing else; its list `asked` keeps the questions."""
    if not list(importlib.metadata.distributions(name="pip")):
        pytest.skip("pip is not installed")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "none").as_uri())
    asked = []

    def offers(name, options=()):
        asked.append(name)
        return offered_versions(sys.executable, name, options)

    offers.asked = asked
    return offers


def chosen(offers, **given):
    return choose(PINS, offers, **{"is_gpu": False, "setting": "", "system": "Linux", **given})


def test_cpu_builds_of_all_three_in_a_folder_are_taken(pip, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", write_wheels(tmp_path / "wheels", *VERSIONS))
    build = chosen(pip)
    assert build.is_cpu and "torch 9.9.9+cpu, torchvision 9.24.0+cpu, torchaudio 9.9.9+cpu from your" in build.reason
    assert build.pin(PINS) == [
        "torch==9.9.9+cpu",
        "torchvision==9.24.0+cpu",
        "torchaudio==9.9.9+cpu",
        "numpy==2.4.6",
    ]


def test_of_the_cpu_builds_at_a_second_index_none_is_taken_if_one_is_missing(pip, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", write_wheels(tmp_path / "index", "torch", "torchvision", is_index=True))
    build = chosen(pip)
    assert build.is_cpu is False and "lack torchaudio 9.9.9+cpu: " in build.reason
    # pip itself would take the two that there are, because 9.9.9+cpu is newer than 9.9.9
    assert build.pin(PINS) == [
        *PINS[:2],
        "torch==9.9.9,!=9.9.9+cpu",
        "torchvision==9.24.0,!=9.24.0+cpu",
        "torchaudio==9.9.9,!=9.9.9+cpu",
        "numpy==2.4.6",
    ]


def test_without_any_cpu_build_pip_decides_and_the_reason_is_said(pip):
    build = chosen(pip, needed=("torch", "torchvision"))
    assert build.is_cpu is None and build.pin(PINS) == PINS and pip.asked == ["torch", "torchvision"]
    assert "lack torch 9.9.9+cpu, torchvision 9.24.0+cpu: " in build.reason


def test_builds_of_another_version_or_for_another_python_do_not_count(pip, tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "torch", "9.9.8+cpu")
    write_wheel(wheels, "torch", "9.9.9+cpu", "cp27-cp27m-manylinux1_x86_64")
    monkeypatch.setenv("PIP_FIND_LINKS", wheels.as_uri())
    assert "lack torch 9.9.9+cpu: " in chosen(pip, needed=("torch",)).reason


def test_without_comfyui_torch_alone_is_enough(pip, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", write_wheels(tmp_path / "wheels", "torch"))
    assert chosen(pip, needed=("torch",)).is_cpu and pip.asked == ["torch"]


def test_an_index_that_comfyuis_requirements_name_is_asked(pip, tmp_path):
    address = write_wheels(tmp_path / "index", "torch", is_index=True)
    file = tmp_path / "requirements.txt"
    file.write_text(f"numpy\n--extra-index-url {address}  # a comment\n-r more.txt\n-f {address}\n")
    options = index_options([file])
    assert options == ["--extra-index-url", address, "-f", address]
    assert not chosen(pip, needed=("torch",)).is_cpu
    assert chosen(lambda name: pip(name, options), needed=("torch",)).is_cpu


@pytest.mark.parametrize(
    "pins, given",
    [
        (PINS, {"is_gpu": True}),
        (PINS, {"system": "Windows"}),
        (PINS, {"system": "Darwin"}),
        (PINS[:3], {}),  # ComfyUI asks for another torchvision
    ],
)
def test_with_a_gpu_or_other_builds_no_index_is_asked(pins, given):
    given = {"is_gpu": False, "setting": "", "system": "Linux", **given}
    assert choose(pins, None, **given) == TorchBuild() and TorchBuild().pin(PINS) == PINS


def test_the_setting_overrules_what_was_found(monkeypatch):
    build = chosen(None, setting="cuda")
    assert build.is_cpu is False and "PRECISECACHE_TORCH is cuda" in build.reason
    monkeypatch.setenv(torch_build.SETTING, "cpu")
    assert chosen(lambda name: {VERSIONS[name] + "+cpu"}, is_gpu=True, setting=None).is_cpu
    with pytest.raises(ValueError, match="must be cpu, cuda or empty, got 'rocm'"):
        chosen(None, setting="rocm")


def test_signs_of_a_gpu():
    def nothing(name):
        return None

    assert not has_gpu(files=nothing, programs=nothing)
    assert has_gpu(files=nothing, programs=lambda name: f"/usr/bin/{name}")
    for sign in ("/dev/nvidia0", "/dev/kfd"):
        assert has_gpu(files=lambda path: path == sign, programs=nothing)


@pytest.mark.parametrize(
    "status, printed, found",
    [
        (0, "torch (2.0)\nAvailable versions: 2.0+cpu, 2.0, 1.9\n  INSTALLED: 1.9\n", {"2.0+cpu", "2.0", "1.9"}),
        (0, "what?", set()),
        (2, "", set()),
    ],
)
def test_an_answer_that_is_not_understood_offers_nothing(monkeypatch, status, printed, found):
    answer = subprocess.CompletedProcess([], status, printed, "")
    monkeypatch.setattr(torch_build.subprocess, "run", lambda *command, **options: answer)
    assert offered_versions("python", "torch") == found


@pytest.mark.parametrize("build, version", [(TorchBuild(True), "9.9.9+cpu"), (TorchBuild(False), "9.9.9")])
def test_pip_follows_the_pins(pip, tmp_path, monkeypatch, build, version):
    """pip takes the build that the constraints name where it has both."""
    write_wheel(tmp_path / "wheels", "torch", "9.9.9")
    write_wheel(tmp_path / "wheels", "torch", "9.9.9+cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "wheels").as_uri())
    file = tmp_path / "constraints.txt"
    file.write_text("\n".join(build.pin(PINS)) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path / "got", "-c", file]
    assert subprocess.run([*command, "torch"]).returncode == 0
    assert [path.name for path in (tmp_path / "got").iterdir()] == [f"torch-{version}-py3-none-any.whl"]
