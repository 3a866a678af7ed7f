"""run.py without installing anything: what it would install, and when it asks pip."""

import run


def test_requirements_of_pyproject_hold_every_extra_the_commands_need():
    wanted = run.own_requirements()
    assert {"torch", "numpy", "einops", "safetensors", "matplotlib", "aiohttp", "pytest", "scipy"} <= set(wanted)
    assert not any(entry.startswith("precisecache") for entry in wanted)


def test_setup_is_done_once_and_again_when_a_requirement_changes(tmp_path, monkeypatch):
    installed = []
    monkeypatch.setattr(run, "STAMP", tmp_path / "stamp.txt")
    monkeypatch.setattr(run, "is_working", lambda python: True)
    monkeypatch.setattr(run, "missing_packages", lambda wanted: [])
    monkeypatch.setattr(run, "torch_constraints", lambda host: ())
    monkeypatch.setattr(run, "torch_fits", lambda: True)
    monkeypatch.setattr(run, "install", lambda requirements, files, constraints: installed.append(files))
    host = tmp_path / "ComfyUI"
    host.mkdir()
    (host / "requirements.txt").write_text("# a comment\naiohttp>=3\n\ntorch\n")
    run.set_up(host)
    run.set_up(host)
    run.set_up(None)  # needs less than what is there
    assert installed == [[host / "requirements.txt"]]
    (host / "requirements.txt").write_text("aiohttp>=4\n")
    run.set_up(host)
    assert len(installed) == 2


def test_a_torch_that_does_not_fit_is_replaced(tmp_path, monkeypatch):
    constraints, answers = [], iter([False, True])
    monkeypatch.setattr(run, "STAMP", tmp_path / "stamp.txt")
    monkeypatch.setattr(run, "is_working", lambda python: True)
    monkeypatch.setattr(run, "torch_constraints", lambda host: ("torch==9.9",))
    monkeypatch.setattr(run, "torch_fits", lambda: next(answers))
    monkeypatch.setattr(run, "install", lambda requirements, files, given: constraints.append(given))
    (tmp_path / "requirements.txt").write_text("torch\n")
    run.set_up(tmp_path)
    assert constraints == [("torch==9.9",), run.FITTING_TORCH]


def test_paths_among_the_pytest_arguments_replace_the_whole_suite():
    assert run.names_tests(["tests/core", "-q"])
    assert not run.names_tests(["-k", "reuse"])
