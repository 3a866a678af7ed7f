"""Finds a ComfyUI for the host tests and loads the pack as ComfyUI would."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def find_host():
    """The ComfyUI to test in: $COMFYUI_PATH, the one around this pack, ~/comfy/ComfyUI; or None."""
    candidates = [ROOT.parents[1], Path.home() / "comfy" / "ComfyUI"]
    if os.environ.get("COMFYUI_PATH"):
        candidates = [Path(os.environ["COMFYUI_PATH"])]
    return next((c for c in candidates if (c / "comfy" / "samplers.py").is_file()), None)


HOST = find_host()
if HOST is not None:
    sys.path.insert(0, str(HOST))
# behind the host, whose module `nodes` would be shadowed by our folder of that name
sys.path.append(str(ROOT))

collect_ignore = [] if HOST else ["host", "web"]


def pytest_report_header():
    if HOST is None:
        return "ComfyUI: not found, so the tests in tests/host and tests/web are skipped"
    return f"ComfyUI: {HOST}"


def pytest_terminal_summary(terminalreporter):
    if HOST is None:
        terminalreporter.write_line(
            "No ComfyUI was found: tests/host and tests/web did not run. Set COMFYUI_PATH to run them.")


def load_pack():
    """The pack as a package of the name PreciseCache, as ComfyUI loads custom nodes."""
    if "PreciseCache" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "PreciseCache", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        sys.modules["PreciseCache"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["PreciseCache"]


@pytest.fixture(scope="session")
def pack():
    return load_pack()


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)
