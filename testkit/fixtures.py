"""Fixtures for tests that sample the tiny model in a real ComfyUI in their own process."""

import re

import pytest
import torch

from testkit.tiny_host import OLDEST, TinyHost, find_host
from tools.comfyui.locate import comfyui_version


@pytest.fixture(scope="session")
def bench():
    torch.set_grad_enabled(False)
    yield TinyHost()
    from testkit.architectures import load

    load.cache_clear()  # the host's models cannot be deleted any more while Python ends


@pytest.fixture(autouse=True)
def _same_clip(request):
    """Every test begins with the same words asked of the tiny model, whatever ran before."""
    if "bench" in request.fixturenames:
        request.getfixturevalue("bench").ask("triangle", "orange", "right")


@pytest.fixture(scope="session")
def host_of_benchmarks():
    """Skips where the host is older than what the benchmarks are written for."""
    version = comfyui_version(find_host())
    if tuple(map(int, re.findall(r"\d+", version))) < OLDEST:
        pytest.skip(f"benchmarks are written for ComfyUI {'.'.join(map(str, OLDEST))} and newer, this is {version}")
