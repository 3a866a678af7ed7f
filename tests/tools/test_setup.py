"""Setting up .venv, without installing anything: when it asks pip, and for what."""

import pytest

from tools import environment


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """The arguments of every installation, in an environment where nothing is missing."""
    given = []
    monkeypatch.setattr(environment, "STAMP", tmp_path / "stamp.txt")
    monkeypatch.setattr(environment, "is_working", lambda python: True)
    monkeypatch.setattr(environment, "missing_packages", lambda wanted: [])
    monkeypatch.setattr(environment, "torch_fits", lambda: True)
    monkeypatch.setattr(environment, "constraints", lambda asked, **options: options)
    monkeypatch.setattr(
        environment,
        "install",
        lambda requirements, files, constraints, options=(): given.append((constraints, files, options)),
    )
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
    assert [constraints for constraints, _, _ in pip] == [{"is_held": True}, {"is_held": False}]
    assert "--upgrade" in pip[1][2] and not pip[0][2]


def test_a_torch_that_does_not_fit_is_replaced(pip, host, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(environment, "torch_fits", lambda: next(answers))
    environment.set_up(host)
    assert [constraints for constraints, _, _ in pip] == [{"is_held": True}, {"is_torch_kept": False}]


def test_a_comfyui_that_contradicts_the_tested_versions_gets_what_it_asks_for(pip, host, monkeypatch, capsys):
    given = []

    def install(requirements, files, constraints, options=()):
        given.append(constraints)
        if constraints["is_held"]:
            raise environment.SetupError("pip could not install the packages")

    monkeypatch.setattr(environment, "install", install)
    environment.set_up(host)
    assert given == [{"is_held": True}, {"is_held": False}] and "again without" in capsys.readouterr().out
    with pytest.raises(environment.SetupError):  # only ComfyUI may ask for other versions
        environment.STAMP.unlink()
        environment.set_up(None)


def test_the_constraints_are_read_in_the_environment_they_are_for():
    lines = environment.constraints([])
    assert any(line.startswith("torch==") for line in lines) and len(lines) > 50
