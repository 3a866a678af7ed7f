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

    load.cache_clear()  # while Python exits the host's models can no longer be deleted


@pytest.fixture(autouse=True)
def _same_clip(request):
    """Every test starts with the same prompt for the tiny model, whatever ran before."""
    if "bench" in request.fixturenames:
        request.getfixturevalue("bench").ask("triangle", "orange", "right")


@pytest.fixture(scope="session")
def host_of_benchmarks():
    """Skip the test if the host is older than the benchmarks need."""
    version = comfyui_version(find_host())
    if tuple(map(int, re.findall(r"\d+", version))) < OLDEST:
        pytest.skip(f"the benchmarks need ComfyUI {'.'.join(map(str, OLDEST))} or newer; this is {version}")
