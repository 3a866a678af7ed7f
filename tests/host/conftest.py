"""A real ComfyUI in this process, on the CPU, with the pack loaded."""

import sys
from pathlib import Path

import pytest
import torch
from comfy.cli_args import args

args.cpu = True
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def bench(pack):
    from host_bench import Bench

    torch.set_grad_enabled(False)
    return Bench()
