"""What the registry and installers read: pyproject.toml, the pictures it names, the workflows."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from testkit.models import DEFAULT, MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pyproject():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    "key, is_fitting",
    [
        ("Icon", lambda width, height: width == height <= 400),
        ("Banner", lambda width, height: abs(width / height - 21 / 9) < 0.01),
    ],
)
def test_icon_and_banner_are_where_the_registry_will_look(pyproject, key, is_fitting):
    Image = pytest.importorskip("PIL.Image")
    owner = pyproject["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    path = pyproject["tool"]["comfy"][key].removeprefix(f"https://raw.githubusercontent.com/{owner}/main/")
    with Image.open(ROOT / path) as picture:
        assert picture.format == "PNG" and is_fitting(*picture.size)


def test_requirements_and_dependencies_agree(pyproject):
    required = (ROOT / "requirements.txt").read_text("utf-8")
    lines = {line for line in required.splitlines() if line and not line.startswith("#")}
    assert lines == set(pyproject["project"]["dependencies"]) - {"torch", "safetensors"}  # ComfyUI's own


def test_the_package_holds_the_files_that_the_readme_links_to():
    ignored = tuple((ROOT / ".comfyignore").read_text("utf-8").split("\n")[1:-1])
    assert all((ROOT / name).is_dir() for name in ignored)
    links = re.findall(r"\]\(([^)#:]+)[)#]", (ROOT / "README.md").read_text("utf-8"))
    assert len(links) > 20 and not [link for link in links if link.startswith(ignored)]


def test_the_package_leaves_out_the_models_that_only_benchmarks_use():
    ignored = tuple((ROOT / ".comfyignore").read_text("utf-8").split("\n")[1:-1])
    folders = {name: model.folder.relative_to(ROOT).as_posix() for name, model in MODELS.items()}
    assert not folders.pop(DEFAULT).startswith(ignored)
    assert folders and all(folder.startswith(ignored) for folder in folders.values())


PAGES = sorted(path for path in ROOT.rglob("*.md") if not {".venv", ".gpu", "output", "runs"} & set(path.parts))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[)#]", page.read_text("utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_into_a_page_lead_to_one_of_its_titles(page):
    for name, place in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text("utf-8")):
        titles = re.findall(r"^#+ (.*)", (page.parent / name if name else page).read_text("utf-8"), re.MULTILINE)
        assert place in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def checks():
    """The shell commands of the publish workflow, in order."""
    yaml = pytest.importorskip("yaml")
    if not shutil.which("bash"):
        pytest.skip("the workflow's commands need bash")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text("utf-8"))
    steps = workflow["jobs"]["publish"]["steps"]
    assert steps[-1]["uses"].startswith("Comfy-Org/publish-node-action@")
    return [step["run"] for step in steps if "run" in step]


def is_accepted(check, folder, **variables):
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", check], cwd=folder, env={**os.environ, **variables}, capture_output=True
    )
    return done.returncode == 0


def test_it_publishes_only_from_the_repository_that_pyproject_names(checks):
    named = re.search(r'Repository = "https://github.com/(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"))[1]
    assert is_accepted(checks[0], ROOT, GITHUB_REPOSITORY=named)
    assert not is_accepted(checks[0], ROOT, GITHUB_REPOSITORY="somebody/PreciseCache")


@pytest.mark.parametrize(
    "tag, heading, accepted",
    [
        ("v1.2.0", "## 1.2.0", True),
        ("v1.2.0", "## 1.2.0 (2026-12-01)", True),
        ("v1.2.0", "## 1.2.0 (unreleased)", False),
        ("v1.2.0", "## 1.2.01", False),
        ("v1.2.0", "## 1x2.0", False),
        ("v1.2.1", "## 1.2.1", False),
    ],
)
def test_it_publishes_a_tag_only_if_pyproject_and_changelog_have_that_version(checks, tmp_path, tag, heading, accepted):
    (tmp_path / "pyproject.toml").write_text('version = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    assert is_accepted(checks[1], tmp_path, GITHUB_REF_NAME=tag) == accepted


def test_pushes_and_pull_requests_are_checked_on_the_oldest_python_and_on_that_which_publishes():
    yaml = pytest.importorskip("yaml")
    check, publish = (
        yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))
        for name in ("check.yml", "publish.yml")
    )
    assert check[True].keys() == {"push", "pull_request"}  # YAML reads the key `on` as true
    job = check["jobs"]["check"]
    pythons = job["strategy"]["matrix"]["python-version"]
    oldest = re.search(r'requires-python = ">=(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"))[1]
    assert pythons == [oldest, publish["jobs"]["publish"]["steps"][1]["with"]["python-version"]]
    assert job["steps"][-1]["run"] == ".ci/run"
    assert "python3 run.py check" in (ROOT / ".ci" / "run").read_text("utf-8")
