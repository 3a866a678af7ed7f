"""The tests of this folder, on a GPU: `python3 tests/gpu` runs them in a process of its own."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# at the end, so that our folder `nodes` does not shadow ComfyUI's module of that name
sys.path += [str(ROOT), str(ROOT / "tests")]

from tools.comfyui.locate import find_comfyui  # noqa: E402

HOST = find_comfyui(ROOT)
OFFLOAD = os.environ.get("PRECISECACHE_DYNAMIC_OFFLOAD")
if HOST and OFFLOAD:
    import dynamic_offload

    dynamic_offload.prepare(HOST)  # before torch is imported

import pytest  # noqa: E402
import torch  # noqa: E402

from testkit.tiny_host import enter_host  # noqa: E402

STATUS = pytest.StashKey[int]()
HAS_GPU = torch.cuda.is_available()
if HOST:
    enter_host(HOST, is_cpu=not HAS_GPU)
    if OFFLOAD and HAS_GPU:
        dynamic_offload.turn_on(OFFLOAD)

    from testkit.fixtures import _same_clip, bench  # noqa: E402, F401

collect_ignore = [] if HOST else ["test_host.py", "test_dynamic_offload.py"]


def pytest_addoption(parser):
    parser.addoption(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse the tests that can run there"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu_only: not even its logic can be rehearsed on a CPU")


def pytest_report_header():
    name = torch.cuda.get_device_name() if HAS_GPU else "none"
    return [f"GPU: {name}, {torch.cuda.device_count()} of them", f"ComfyUI: {HOST or 'not found'}"]


def pytest_collection_modifyitems(config, items):
    is_rehearsal = config.getoption("device") == "cpu"
    for item in items:
        if item.get_closest_marker("gpu_only") and (is_rehearsal or not HAS_GPU):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
        elif not is_rehearsal and not HAS_GPU:
            item.add_marker(pytest.mark.skip(reason="needs a GPU (--device cpu rehearses it without one)"))


@pytest.fixture(scope="session")
def device(pytestconfig):
    return torch.device(pytestconfig.getoption("device"), 0)


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)
    torch.set_grad_enabled(False)


def pytest_sessionfinish(session, exitstatus):
    session.config.stash[STATUS] = exitstatus


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    # the library behind dynamic offload crashes while Python exits, which a server never does
    if OFFLOAD and STATUS in config.stash:
        sys.stdout.flush()
        os._exit(config.stash[STATUS])
