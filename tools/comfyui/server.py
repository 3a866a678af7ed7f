"""ComfyUI servers to run graphs on: started for it, in folders of their own or the user's, or running already."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


class ServerFailed(RuntimeError):
    """ComfyUI did not start, went away, or refused or failed the graph."""


def hold_port():
    """A socket on a free port, which stays ours until ComfyUI listens there.

    On Linux a port that is bound and not listened on can be bound once more by who says SO_REUSEADDR, as
    ComfyUI does, and goes to nobody else meanwhile; elsewhere it must be let go first.
    """
    held = socket.socket()
    if sys.platform == "linux":
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class ComfyServer:
    """Context: a ComfyUI process with this pack and no other, stopped on the way out.

    Its folders (outputs, models, settings, database) are a temporary one, so that the
    user's ComfyUI is not touched; its log goes to `log`.

    cached_nodes: so many results ComfyUI keeps to answer from. The demo keeps none: it runs the same
        graph again to time it.
    """

    def __init__(self, host, log, cached_nodes=0):
        self.host = host
        self.log = log
        self.cached_nodes = cached_nodes
        self.process = None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="precisecache-", ignore_cleanup_errors=True)
        self.held_port = hold_port()
        self.port = self.held_port.getsockname()[1]
        if sys.platform != "linux":
            self.held_port.close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # a python path from outside must not put other modules before the host's own
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        try:
            with self.log.open("w", encoding="utf-8") as log:
                self.process = subprocess.Popen(self._command(), cwd=self.host, env=environment,
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        except BaseException:
            self.held_port.close()
            self.folder.cleanup()
            raise
        return self

    def _command(self):
        return [
            sys.executable, "main.py", *([] if torch.cuda.is_available() else ["--cpu"]),
            "--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch",
            "--database-url", "sqlite:///:memory:", *self._folders(Path(self.folder.name)),
        ]

    def _folders(self, base):
        """Arguments: the pack alone, and every folder in `base`."""
        for name in ("user", "models", "input", "output", "temp", "custom_nodes"):
            (base / name).mkdir()
        return [
            "--base-directory", str(base), "--user-directory", str(base / "user"),
            *pack_path(base), "--disable-all-custom-nodes", "--whitelist-custom-nodes", ROOT.name,
            "--disable-api-nodes",
            *(["--cache-lru", str(self.cached_nodes)] if self.cached_nodes else ["--cache-none"]),
        ]

    def wait(self, seconds=600):
        """Until it answers. Raises ServerFailed if it ends or takes longer."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(f"http://{self.address}/system_stats").close()
                return
            except OSError as error:
                if self.has_ended or time.monotonic() > deadline:
                    raise ServerFailed(f"ComfyUI does not answer:\n{self.log_tail()}") from error
            time.sleep(0.2)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def has_ended(self):
        return self.process.poll() is not None

    def log_text(self):
        """Its log so far, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text("utf-8", errors="replace"))

    def log_tail(self, lines=30):
        return "\n".join(self.log_text().splitlines()[-lines:])

    def import_error(self):
        """What the log says about a pack that could not be imported, or its last lines."""
        found = re.search(r"Traceback \(most recent call last\)(?:(?!Traceback).)*?Cannot import [^\n]*",
                          self.log_text(), re.DOTALL)
        return found[0] if found else self.log_tail()

    def __exit__(self, *_):
        if not self.has_ended:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.held_port.close()
        self.folder.cleanup()


class UsersComfyServer(ComfyServer):
    """The same with the models, inputs and nodes that its user has there; what it makes goes to a temporary folder."""

    def _folders(self, base):
        (base / "output").mkdir()
        is_installed = self.host in ROOT.parents
        # the folder "temp" is made inside the one named here
        return ["--output-directory", str(base / "output"), "--temp-directory", str(base),
                *([] if is_installed else pack_path(base, alone(base)))]


class RunningServer:
    """A ComfyUI that somebody else runs, "host:port"."""

    has_ended = False  # nobody can tell but by asking it

    def __init__(self, address):
        self.address = address.removeprefix("http://").rstrip("/")

    def log_tail(self):
        return f"(its log is where the ComfyUI at {self.address} was started; --comfyui PATH starts one for the graph)"

    import_error = log_tail

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def alone(base):
    """A folder in `base` with a link to this pack, so that what else lies beside the clone is not loaded."""
    folder = base / "custom_nodes"
    folder.mkdir()
    if os.name == "nt":  # a symbolic link takes a right that users lack there
        import _winapi

        _winapi.CreateJunction(str(ROOT), str(folder / "PreciseCache"))
    else:
        (folder / "PreciseCache").symlink_to(ROOT)
    return folder


def pack_path(base, folder=ROOT.parent):
    """Arguments with which a ComfyUI finds this pack in `folder`."""
    paths = base / "paths.yaml"  # JSON is YAML
    paths.write_text(json.dumps({"precisecache": {"custom_nodes": str(folder)}}), encoding="utf-8")
    return ["--extra-model-paths-config", str(paths)]
