"""The tiny model in a real ComfyUI in this process."""

import pytest
import torch

from benchmarks.tiny_host import TinyHost


@pytest.fixture(scope="session")
def bench():
    torch.set_grad_enabled(False)
    return TinyHost()
