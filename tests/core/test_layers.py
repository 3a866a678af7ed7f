"""Imports point one way: nodes -> nodes/host -> precisecache_core, and only the host layer knows ComfyUI.

Also, no folders import each other in a circle, and the tests do not import the benchmarks.
"""

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
CORE_MAY_LAZILY = {"PIL", "diffusers", "kornia", "lpips", "torchvision"}
HOST_INSIDE = {"comfy", "comfy_execution", "comfy_extras", "execution", "folder_paths", "server"}


def imports_of(source):
    """Yield (top-level package, or "" if relative; number of dots; is inside a function) for every import."""
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
    """The imports that a file of the core, `depth` folders down, must not have."""
    return [
        package or "." * dots
        for package, dots, is_lazy in imports_of(source)
        if not (package in CORE_MAY or is_lazy and package in CORE_MAY_LAZILY or 0 < dots <= depth + 1)
    ]


def files(folder, pattern):
    found = sorted(folder.glob(pattern))
    assert found
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in found]


@pytest.mark.parametrize("path", files(CORE, "**/*.py"))
def test_the_core_imports_no_host(path):
    assert faults_of_core(path.read_text(encoding="utf-8"), len(path.relative_to(CORE).parts) - 1) == []


@pytest.mark.parametrize("path", files(ROOT / "nodes", "*.py"))
def test_node_files_import_nothing_of_the_hosts_inside(path):
    packages = {package for package, _, _ in imports_of(path.read_text(encoding="utf-8"))}
    assert not packages & HOST_INSIDE


@pytest.mark.parametrize(
    "source, faults",
    [
        ("import comfy.samplers", ["comfy"]),
        ("def f():\n    from comfy.utils import x", ["comfy"]),
        ("from comfy_api.latest import io", ["comfy_api"]),
        ("import scipy, torch", ["scipy"]),
        ("import matplotlib", ["matplotlib"]),
        ("def f():\n    import PIL.Image", []),
        ("from . import run", []),
        ("from ..nodes import lfcache", [".."]),
    ],
)
def test_forbidden_imports_of_the_core_are_found(source, faults):
    assert faults_of_core(source) == faults


def users_of_diffusers(root):
    """Files of the core and the nodes that import diffusers, or what needs it, as paths from the root."""
    return {
        path.relative_to(root).as_posix()
        for folder in ("precisecache_core", "nodes")
        for path in (root / folder).rglob("*.py")
        if any(package == "diffusers" for package, _, _ in imports_of(path.read_text(encoding="utf-8")))
        or any("precisecache_core.pipelines" in module for module in modules_in(path, root))
        and "pipelines" not in path.parts
    }


def test_only_the_pipelines_know_diffusers():
    assert users_of_diffusers(ROOT) == {"precisecache_core/pipelines/hooked.py"}


def test_a_planted_use_of_diffusers_is_found(tmp_path):
    for name, source in {
        "nodes/a.py": "def f():\n    import diffusers.hooks",
        "nodes/b.py": "from ..precisecache_core.pipelines.diffusers import apply_precisecache",
        "nodes/c.py": "from ..precisecache_core import x",
        "precisecache_core/x.py": "from .pipelines import diffusers",
        "precisecache_core/pipelines/y.py": "from .adapters import z",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    assert users_of_diffusers(tmp_path) == {"nodes/a.py", "nodes/b.py", "precisecache_core/x.py"}


def test_the_core_and_its_pipelines_load_where_diffusers_is_missing(tmp_path):
    code = """
import sys, types
sys.modules["diffusers"] = None  # its import fails
import precisecache_core, torch
from precisecache_core.pipelines.diffusers import apply_precisecache
pipe = types.SimpleNamespace(scheduler=types.SimpleNamespace(config={}), transformer=torch.nn.Linear(1, 1))
try:
    apply_precisecache(pipe)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "PreciseCache: this needs diffusers 0.37 or newer" in done.stdout and done.returncode == 0, done.stderr


# what comes with ComfyUI, our own modules, and what a benchmark can run without
NOT_DECLARED = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "folder_paths",
    "nodes",
    "own",
    "panel_texts",
    "PreciseCache",
    "benchmarks",
    "compatibility",
    "pip",
    "torchvision",
    "precisecache_core",
    "run",
    "testkit",
    "tools",
    "toys",
    "comfy_aimdo",
    "conftest",
    "dynamic_offload",
    "network",
    "pack",
    "pipes",
    "ranks",
    "rflow",
    "test_hostile",
    "test_inputs",
    "undescribed",
    "psutil",  # ComfyUI's
    "opensora",
    "raylight",
    "yunchang",  # xfuser's
} | set(sys.stdlib_module_names)
PACKAGES = {"PIL": "pillow", "skimage": "scikit-image"}  # modules whose package has another name


def test_what_demo_tests_and_benchmarks_import_is_declared():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = set(re.findall(r'^\s+"([\w-]+)(?:\[\w+\])?[^"]*",$', text, re.MULTILINE)) | set(
        re.findall(r'\["([\w-]+)[^"]*"\]', text)
    )
    used = {
        package
        for folder in ("precisecache_core", "nodes", "tools", "testkit", "tests", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
        for package, dots, _ in imports_of(path.read_text(encoding="utf-8"))
        if not dots
    }
    assert {PACKAGES.get(package, package) for package in used - NOT_DECLARED} <= declared


FOLDERS = ("precisecache_core", "nodes", "tools", "benchmarks", "testkit")
LOADERS = {"import_module", "importorskip", "pack_module"}  # functions that take a module's name as a string


def modules_in(path, root):
    """Yield the dotted names, from the root, of our own modules that a file imports; ComfyUI's `nodes` is not ours."""
    here = list(path.relative_to(root).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level], *filter(None, [node.module])] if node.level else [node.module]
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called in LOADERS:
                names = [("PreciseCache." if called == "pack_module" else "") + str(node.args[0].value)]
        for name in names:
            is_packs = name.startswith("PreciseCache.") or getattr(node, "level", 0)
            if is_packs or not name.startswith("nodes"):
                yield name.removeprefix("PreciseCache.")


def part_of(module, root):
    """The part that a module belongs to, or None: its folder, or the module itself if it lies directly in FOLDERS."""
    names = module.split(".")
    while (
        names
        and not (is_folder := (root.joinpath(*names) / "__init__.py").is_file())
        and not (root.joinpath(*names).with_suffix(".py").is_file())
    ):
        names.pop()  # a name in a module
    if not names or names[0] not in FOLDERS:
        return None
    return ".".join(names if is_folder or len(names) == 2 else names[:-1])


def parts(root):
    """{part: parts that it imports}. A part is a folder, or a module that lies directly in one of FOLDERS."""
    found = {}
    for path in (path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))):
        names = path.relative_to(root).with_suffix("").parts
        here = part_of(".".join(names[:-1] if names[-1] == "__init__" else names), root)
        others = {part_of(module, root) for module in modules_in(path, root)}
        found.setdefault(here, set()).update(others - {here, None})
    return found


def circle(graph):
    """A list of parts, each of which imports the next and the last of which imports the first; or None."""
    done = set()

    def search(part, trail):
        if part in trail:
            return trail[trail.index(part) :]
        if part in done:
            return None
        found = next(filter(None, (search(other, [*trail, part]) for other in sorted(graph.get(part, ())))), None)
        done.add(part)
        return found

    return next(filter(None, (search(part, []) for part in sorted(graph))), None)


def test_no_folders_import_each_other_in_a_circle():
    graph = parts(ROOT)
    assert "tools.graph" in graph["tools.demo"] and "precisecache_core.lfcache" in graph["nodes.host"]
    assert circle(graph) is None


@pytest.mark.parametrize(
    "planted, found",
    [
        ({}, None),
        ({"tools/graph/run.py": "from tools.demo import main"}, ["tools.demo", "tools.graph"]),
        ({"tools/graph/run.py": "def f():\n    import tools.demo.main as m"}, ["tools.demo", "tools.graph"]),
        ({"tools/comfyui.py": "from .demo.main import x"}, ["tools.comfyui", "tools.demo", "tools.graph"]),
        (
            {"testkit/host.py": "pack_module('nodes.a')", "nodes/a.py": "from ..testkit import host"},
            ["nodes.a", "testkit.host"],
        ),
        ({"testkit/host.py": "import nodes", "nodes/a.py": "from ..testkit import host"}, None),  # ComfyUI's `nodes`
    ],
)
def test_a_planted_circle_is_found(tmp_path, planted, found):
    for name, source in {
        "tools/demo/main.py": "from tools.graph import run",
        "tools/graph/run.py": "",
        "tools/comfyui.py": "",
        **planted,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        (path.parent / "__init__.py").touch()
        (tmp_path / path.relative_to(tmp_path).parts[0] / "__init__.py").touch()
    if "tools/comfyui.py" in planted:
        (tmp_path / "tools" / "graph" / "run.py").write_text("from ..comfyui import x")
    assert circle(parts(tmp_path)) == found


def uses_of_benchmarks(root):
    """Test files that import a module of the benchmarks, without those in tests/benchmarks."""
    tests = root / "tests"
    return [
        path.relative_to(root).as_posix()
        for path in sorted(tests.rglob("*.py"))
        if path.relative_to(tests).parts[0] != "benchmarks"
        and any(module.startswith("benchmarks.") for module in modules_in(path, root))
    ]


def test_only_the_tests_of_benchmarks_import_benchmarks():
    """`import benchmarks` in tests/conftest.py only takes the name, see there."""
    assert uses_of_benchmarks(ROOT) == []


def test_a_planted_import_of_the_benchmarks_is_found(tmp_path):
    for name, source in {
        "core/test_a.py": "from benchmarks import study",
        "conftest.py": "import benchmarks",
        "benchmarks/test_b.py": "import benchmarks.tables",
        "host/test_c.py": "pytest.importorskip('benchmarks.quality')",
        "host/test_d.py": "def f():\n    from benchmarks.tables.macs import x",
    }.items():
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text(source)
    assert uses_of_benchmarks(tmp_path) == ["tests/core/test_a.py", "tests/host/test_c.py", "tests/host/test_d.py"]


LOAD_AS_THE_HOST_DOES = """
import importlib.util, sys
path = sys.argv[1]
spec = importlib.util.spec_from_file_location("PreciseCache", path + "/__init__.py", submodule_search_locations=[path])
sys.modules["PreciseCache"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.__all__, module.WEB_DIRECTORY)
"""


def load_pack(folder):
    """Import the pack in a process of its own, started in `folder` in place of ComfyUI's folder."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", LOAD_AS_THE_HOST_DOES, str(ROOT)], cwd=folder, env=env, capture_output=True, text=True
    )


def test_the_pack_loads_without_comfyui(tmp_path):
    done = load_pack(tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("['WEB_DIRECTORY'] ./web", 0), done.stderr


def test_a_missing_package_other_than_comfyui_is_an_error(tmp_path):
    (tmp_path / "comfy_api").mkdir()
    (tmp_path / "comfy_api" / "latest.py").write_text("import a_missing_package\n")
    done = load_pack(tmp_path)
    assert done.returncode != 0 and "No module named 'a_missing_package'" in done.stderr
