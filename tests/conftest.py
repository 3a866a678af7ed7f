"""Finds a ComfyUI for the host tests; without one the rest runs and says so."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# at the end, so that a ComfyUI's module `nodes` is not shadowed by our folder of that name
sys.path.append(str(ROOT))

from benchmarks.tiny_host import enter_host, find_host  # noqa: E402

HOST = find_host()
if HOST is not None:
    enter_host(HOST)

collect_ignore = [] if HOST else ["host", "web"]


def pytest_report_header():
    if HOST is None:
        return "ComfyUI: not found, so the tests in tests/host and tests/web are skipped"
    return f"ComfyUI: {HOST}"


def pytest_terminal_summary(terminalreporter):
    if HOST is None:
        terminalreporter.write_line(
            "No ComfyUI was found: tests/host and tests/web did not run. Set COMFYUI_PATH to run them.")


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)
