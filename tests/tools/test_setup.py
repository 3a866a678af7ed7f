"""Setting up .venv, without installing anything: when it asks pip, and for what."""

import sys

import pytest

from tools import environment
from tools.torch_build import TorchBuild


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """The arguments of every installation, in an environment where nothing is missing."""
    given = []
    monkeypatch.setattr(environment, "STAMP", tmp_path / "stamp.txt")
    monkeypatch.setattr(environment, "LOG", tmp_path / "pip.log")
    monkeypatch.setattr(environment, "is_working", lambda python: True)
    monkeypatch.setattr(environment, "missing_packages", lambda wanted: [])
    monkeypatch.setattr(environment, "torch_fits", lambda: True)
    monkeypatch.setattr(environment, "choose_build", lambda pins, files: TorchBuild())
    monkeypatch.setattr(
        environment,
        "constraints",
        lambda asked, **options: ["torch==2.11.0", *(f"{k}: {v}" for k, v in options.items())],
    )
    monkeypatch.setattr(
        environment,
        "install",
        lambda requirements, files, constraints, options=(): given.append((constraints, files, options)),
    )
    monkeypatch.delenv("RAYLIGHT_PATH", raising=False)
    return given


@pytest.fixture
def host(tmp_path):
    folder = tmp_path / "ComfyUI"
    folder.mkdir()
    (folder / "requirements.txt").write_text("# a comment\naiohttp>=3\n\ntorch\n")
    return folder


def test_setup_is_done_once_and_again_when_a_requirement_changes(pip, host):
    environment.set_up(host)
    environment.set_up(host)
    environment.set_up(None)  # needs less than what is installed
    assert [files for _, files, _ in pip] == [[host / "requirements.txt"]]
    (host / "requirements.txt").write_text("aiohttp>=4\n")
    environment.set_up(host)
    assert len(pip) == 2


def test_what_the_tests_of_pipelines_need_is_installed(pip, monkeypatch):
    given = []
    monkeypatch.setattr(environment, "install", lambda requirements, *rest: given.append(requirements))
    environment.set_up(None)
    assert "diffusers>=0.37" in given[0]


def test_what_raylight_needs_is_installed_only_where_there_is_a_raylight(pip, monkeypatch):
    given = []
    monkeypatch.setattr(environment, "install", lambda requirements, *rest: given.append(requirements))
    environment.set_up(None)
    monkeypatch.setenv("RAYLIGHT_PATH", "raylight")
    environment.set_up(None)
    without, with_raylight = given
    assert with_raylight == [*without, "ray", "xfuser==0.4.5"]


def test_setup_is_done_again_when_a_tested_version_changes(pip, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    tested = tmp_path / "python3.10.txt"
    for text in ("einops==0.8.1\n", "einops==0.8.1\n", "einops==0.8.2\n"):
        tested.write_text(text)
        environment.set_up(None)
    assert len(pip) == 2


def test_a_renewal_asks_pip_for_the_newest_of_all_but_torch(pip):
    environment.set_up(None)
    environment.set_up(None, is_renewed=True)
    assert [constraints for constraints, _, _ in pip] == [
        ["torch==2.11.0", "is_held: True"],
        ["torch==2.11.0", "is_held: False"],
    ]
    assert "--upgrade" in pip[1][2] and not pip[0][2]


@pytest.mark.parametrize(
    "is_cpu, pin",
    [(None, "torch==2.11.0,!=2.11.0+cpu"), (False, "torch==2.11.0,!=2.11.0+cpu"), (True, "torch==2.11.0+cpu")],
)
def test_a_torch_that_does_not_fit_is_replaced_by_builds_of_one_kind(pip, host, monkeypatch, is_cpu, pin):
    answers = iter([False, True])
    monkeypatch.setattr(environment, "torch_fits", lambda: next(answers))
    monkeypatch.setattr(environment, "choose_build", lambda pins, files: TorchBuild(is_cpu))
    environment.set_up(host)
    assert [constraints for constraints, _, _ in pip] == [
        ["torch==2.11.0", "is_held: True"],  # torch is there already, so that no build was chosen
        [pin, "is_torch_kept: False"],
    ]


def test_a_build_is_chosen_only_where_torch_is_missing(pip, monkeypatch):
    monkeypatch.setattr(environment, "missing_packages", lambda wanted: [name for name in wanted if name == "torch"])
    monkeypatch.setattr(environment, "choose_build", lambda pins, files: TorchBuild(True))
    environment.set_up(None)
    assert [constraints for constraints, _, _ in pip] == [["torch==2.11.0+cpu", "is_held: True"]]


def test_a_comfyui_that_contradicts_the_tested_versions_gets_what_it_asks_for(pip, host, monkeypatch, capsys):
    given = []

    def install(requirements, files, constraints, options=()):
        given.append(constraints)
        if "is_held: True" in constraints:
            raise environment.SetupError("pip could not install the packages")

    monkeypatch.setattr(environment, "install", install)
    environment.set_up(host)
    assert [lines[1] for lines in given] == ["is_held: True", "is_held: False"]
    assert "again without" in capsys.readouterr().out
    with pytest.raises(environment.SetupError):  # only ComfyUI may ask for other versions
        environment.STAMP.unlink()
        environment.set_up(None)


def test_the_constraints_are_read_in_the_environment_they_are_for():
    lines = environment.constraints([])
    assert any(line.startswith("torch==") for line in lines) and len(lines) > 50


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    """A function that sets the program that is started in pip's place; returns the log's path."""
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "LOG", tmp_path / "pip.log")
    monkeypatch.delenv(environment.VERBOSE, raising=False)

    def replace(code):
        monkeypatch.setattr(environment, "pip_command", lambda *given: [sys.executable, "-c", code])
        return tmp_path / "pip.log"

    return replace


TALK = "print('Collecting numpy', *(f'line {n}' for n in range(60)), sep='\\n')"


def test_pips_output_goes_to_the_log(fake_pip, capfd):
    log = fake_pip(TALK)
    environment.install([], [], ["numpy==2"])
    shown = capfd.readouterr()
    assert [line.split(": ")[0] for line in shown.out.splitlines()] == ["[run.py] collecting packages ..."] + [
        "[run.py] collecting packages"
    ]
    assert not shown.err
    first, *lines = log.read_text("utf-8").splitlines()
    assert first.startswith("$ ") and lines == ["Collecting numpy", *(f"line {n}" for n in range(60))]


def test_if_pip_fails_its_last_lines_and_the_log_are_named(fake_pip, capfd):
    log = fake_pip(TALK + "; raise SystemExit('ERROR: no network')")
    with pytest.raises(environment.SetupError, match="exit status 1.*above") as error:
        environment.install([], [], ["numpy==2"])
    shown = capfd.readouterr()
    lines = shown.err.splitlines()
    assert str(log) in str(error.value) and "failed with exit status 1" in shown.out
    assert len(lines) == 40 and lines[0] == "line 21" and lines[-1] == "ERROR: no network"


def test_verbose_shows_pips_output(fake_pip, monkeypatch, capfd):
    log = fake_pip(TALK)
    monkeypatch.setenv(environment.VERBOSE, "1")
    environment.install([], [], ["numpy==2"])
    assert "line 0\nline 1" in capfd.readouterr().out and not log.exists()
