"""Imports point one way: nodes -> nodes/host -> precisecache_core, and only the host layer knows ComfyUI."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "precisecache_core"
CORE_MAY = {"torch", "numpy", "einops", "safetensors"} | set(sys.stdlib_module_names)
CORE_MAY_LAZILY = {"matplotlib", "PIL", "kornia"}
HOST_INSIDE = {"comfy", "comfy_execution", "comfy_extras", "execution", "folder_paths", "server"}


def imports_of(source):
    """(top-level package, or "" where relative; dots; is inside a function) of every import."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lazy = {id(n) for function in functions for n in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], 0, id(node) in lazy
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else node.module.split(".")[0], node.level, id(node) in lazy


def faults_of_core(source, depth=0):
    """What a file of the core, `depth` folders down, must not import."""
    return [package or "." * dots for package, dots, is_lazy in imports_of(source)
            if not (package in CORE_MAY or is_lazy and package in CORE_MAY_LAZILY or 0 < dots <= depth + 1)]


def files(folder, pattern):
    found = sorted(folder.glob(pattern))
    assert found
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in found]


@pytest.mark.parametrize("path", files(CORE, "**/*.py"))
def test_the_core_imports_no_host(path):
    assert faults_of_core(path.read_text(encoding="utf-8"), len(path.relative_to(CORE).parts) - 1) == []


@pytest.mark.parametrize("path", files(ROOT / "nodes", "*.py"))
def test_node_files_leave_the_host_to_the_host_layer(path):
    packages = {package for package, _, _ in imports_of(path.read_text(encoding="utf-8"))}
    assert not packages & HOST_INSIDE


@pytest.mark.parametrize("source, faults", [
    ("import comfy.samplers", ["comfy"]),
    ("def f():\n    from comfy.utils import x", ["comfy"]),
    ("from comfy_api.latest import io", ["comfy_api"]),
    ("import scipy, torch", ["scipy"]),
    ("import matplotlib", ["matplotlib"]),
    ("def f():\n    import matplotlib.figure", []),
    ("from . import run", []),
    ("from ..nodes import lfcache", [".."]),
])
def test_the_walk_finds_what_it_looks_for(source, faults):
    assert faults_of_core(source) == faults


# what comes with ComfyUI, ourselves, and what a benchmark does without where it is missing
NOT_DECLARED = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "lpips",
                "benchmarks", "compatibility", "precisecache_core", "run", "testkit", "tools", "toys"} | set(sys.stdlib_module_names)
PACKAGES = {"PIL": "pillow", "skimage": "scikit-image"}  # where the package has another name


def test_what_demo_tests_and_benchmarks_import_is_declared():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = set(re.findall(r'^\s+"([\w-]+)(?:\[\w+\])?[^"]*",$', text, re.MULTILINE)) | set(
        re.findall(r'\["([\w-]+)"\]', text))
    used = {package for folder in ("precisecache_core", "nodes", "tools", "testkit", "tests", "benchmarks")
            for path in (ROOT / folder).rglob("*.py")
            for package, dots, _ in imports_of(path.read_text(encoding="utf-8")) if not dots}
    assert {PACKAGES.get(package, package) for package in used - NOT_DECLARED} <= declared


LOAD_AS_THE_HOST_DOES = """
import importlib.util, sys
path = sys.argv[1]
spec = importlib.util.spec_from_file_location("PreciseCache", path + "/__init__.py", submodule_search_locations=[path])
sys.modules["PreciseCache"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.__all__, module.WEB_DIRECTORY)
"""


def load_pack(folder):
    """Import the pack in a process of its own, with `folder` in place of ComfyUI's."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", LOAD_AS_THE_HOST_DOES, str(ROOT)], cwd=folder, env=env,
                          capture_output=True, text=True, timeout=60)


def test_the_pack_loads_without_comfyui(tmp_path):
    done = load_pack(tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("['WEB_DIRECTORY'] ./web", 0), done.stderr


def test_a_missing_package_of_another_kind_shows(tmp_path):
    (tmp_path / "comfy_api").mkdir()
    (tmp_path / "comfy_api" / "latest.py").write_text("import a_missing_package\n")
    done = load_pack(tmp_path)
    assert done.returncode != 0 and "No module named 'a_missing_package'" in done.stderr
