"""Finds a ComfyUI for the tests that need one, and says at the end what was skipped and why."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# at the end, so that our folder `nodes` does not shadow ComfyUI's module of that name
sys.path.append(str(ROOT))

# before pytest gives the name `benchmarks` to tests/benchmarks
import benchmarks  # noqa: E402, F401
from testkit.tiny_host import find_host  # noqa: E402

HOST = find_host()

# the tests that need a GPU run in a process of their own, see gpu/README.md
# Two workers run whole files. These take longest, so they start first: at the end no worker waits long for the other.
LONGEST = (
    "compatibility/test_cells.py",
    "web/test_workflows.py",
    "host/test_compile.py",
    "web/test_page.py",
    "core/test_group.py",
    "benchmarks/test_limit.py",
    "host/test_workflows.py",
)

collect_ignore = ["gpu", *([] if HOST else ["host", "web", "compatibility", "multigpu"])]


def pytest_report_header():
    if HOST is None:
        return "ComfyUI: not found, so the tests that need one are skipped"
    return f"ComfyUI: {HOST}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The longest files first, then those with the most tests; the order within a file stays."""
    tests = Path(__file__).parent
    groups = [item.path.parent if item.path.parent.name == "multigpu" else item.path for item in items]
    counts = Counter(groups)

    def place(group):
        name = group.relative_to(tests).as_posix()
        return LONGEST.index(name) if name in LONGEST else len(LONGEST), -counts[group], name

    order = {group: place(group) for group in counts}
    items[:] = [item for _, item in sorted(zip(groups, items, strict=True), key=lambda pair: order[pair[0]])]


def pytest_terminal_summary(terminalreporter):
    # of a skipped test, longrepr is (file, line, "Skipped: reason")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped: {count} {'test' if count == 1 else 'tests'}: {reason}")
    if HOST is None:
        terminalreporter.write_line(
            "No ComfyUI was found: the tests that need one did not run. Set COMFYUI_PATH to run them."
        )


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)
