"""What the registry and installers are told: pyproject.toml, the pictures it names, the publish workflow."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pyproject():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("key, is_fitting", [
    ("Icon", lambda width, height: width == height <= 400),
    ("Banner", lambda width, height: abs(width / height - 21 / 9) < 0.01),
])
def test_icon_and_banner_are_where_the_registry_will_look(pyproject, key, is_fitting):
    Image = pytest.importorskip("PIL.Image")
    owner = pyproject["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    path = pyproject["tool"]["comfy"][key].removeprefix(f"https://raw.githubusercontent.com/{owner}/main/")
    with Image.open(ROOT / path) as picture:
        assert picture.format == "PNG" and is_fitting(*picture.size)


def test_what_installers_get_is_what_the_nodes_import(pyproject):
    required = (ROOT / "requirements.txt").read_text("utf-8")
    lines = {line for line in required.splitlines() if line and not line.startswith("#")}
    assert lines == set(pyproject["project"]["dependencies"]) - {"torch", "safetensors"}  # ComfyUI's own


def test_the_package_leaves_development_out():
    ignored = {line.rstrip("/") for line in (ROOT / ".comfyignore").read_text("utf-8").splitlines()
               if not line.startswith("#")}
    assert all((ROOT / name).is_dir() for name in ignored - {".ci", ".github"})
    needed = {"nodes", "precisecache_core", "web", "locales", "workflows", "headless", "demo", "assets"}
    assert not ignored & needed


@pytest.fixture(scope="module")
def checks():
    """The publish workflow's own shell lines, in order."""
    yaml = pytest.importorskip("yaml")
    if not shutil.which("bash"):
        pytest.skip("the workflow's lines are for bash")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text("utf-8"))
    steps = workflow["jobs"]["publish"]["steps"]
    assert steps[-1]["uses"].startswith("Comfy-Org/publish-node-action@")
    return [step["run"] for step in steps if "run" in step]


def is_accepted(check, folder, repository=""):
    done = subprocess.run(["bash", "-ec", check], cwd=folder, env={**os.environ, "GITHUB_REPOSITORY": repository},
                          capture_output=True)
    return done.returncode == 0


def test_it_publishes_from_the_named_address_alone(checks):
    named = re.search(r'Repository = "https://github.com/(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"))[1]
    assert is_accepted(checks[0], ROOT, named)
    assert not is_accepted(checks[0], ROOT, "somebody/PreciseCache")


@pytest.mark.parametrize("heading, accepted", [
    ("## 1.2.0", True), ("## 1.2.0 (2026-12-01)", True), ("## 1.2.0 (unreleased)", False), ("## 1.2.01", False)])
def test_it_publishes_versions_that_the_changelog_has(checks, tmp_path, heading, accepted):
    (tmp_path / "pyproject.toml").write_text('version = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    assert is_accepted(checks[1], tmp_path) == accepted
