"""Servers for the tests of the commands, and a reader of the table that `run.py graph --watch` prints."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from testkit.tiny_host import find_host
from tools.comfyui.server import ComfyServer, RunningServer, hold_port

HANGS_SECONDS = 900  # ends a wait that has failed; nothing is expected to take that long


@pytest.fixture(scope="session")
def host():
    return find_host() or pytest.skip("no ComfyUI")


@pytest.fixture(scope="session")
def server(host, tmp_path_factory):
    with ComfyServer(host, tmp_path_factory.mktemp("server") / "comfyui.log") as server:
        server.wait()
        yield server


@pytest.fixture
def fake(tmp_path):
    """A folder with a ComfyUI that runs every graph at once."""
    folder = tmp_path / "comfyui"
    (folder / "comfy").mkdir(parents=True)
    (folder / "comfy" / "samplers.py").touch()
    shutil.copy(Path(__file__).with_name("fake_comfyui.py"), folder / "main.py")
    return folder


@pytest.fixture
def fake_server(fake):
    """start() starts the fake ComfyUI at a fixed port; .address is its address, .process runs it."""

    class Server(RunningServer):
        def start(self):
            port = self.address.rpartition(":")[2]
            self.process = subprocess.Popen([sys.executable, "main.py", "--port", port], cwd=fake)

        def wait(self):
            deadline = time.monotonic() + HANGS_SECONDS
            while time.monotonic() < deadline:
                try:
                    return urllib.request.urlopen(f"http://{self.address}/system_stats").close()
                except OSError:
                    time.sleep(0.05)
            raise AssertionError("the fake ComfyUI does not answer")

    with hold_port() as held:
        server = Server(f"127.0.0.1:{held.getsockname()[1]}")
        if sys.platform != "linux":
            held.close()
        server.start()
        server.wait()
        yield server
        server.process.kill()
        server.process.wait()


@pytest.fixture
def wait_until_idle(server):
    """wait_until_idle(): waits until the server runs no prompt and none waits; fails if one runs on."""

    def wait():
        deadline = time.monotonic() + HANGS_SECONDS
        while True:
            with urllib.request.urlopen(f"http://{server.address}/queue") as answer:
                if not any(json.load(answer).values()):
                    return
            assert time.monotonic() < deadline, "the prompt runs on"
            time.sleep(0.1)

    return wait


@pytest.fixture
def rows():
    """rows(out): {name: the other cells} of the table at the end of what was printed."""

    def read(out):
        lines = out[out.index("file  ") :].splitlines()
        found = [re.split(" {2,}", line) for line in lines[1:] if line.strip("-")]
        return {cells[0]: cells[1:] for cells in found}

    return read
