"""ComfyUI servers that run graphs: started here, in temporary folders or the user's, or already running."""

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
    """ComfyUI did not start, exited, refused the graph, or failed while it ran the graph."""


class ServerLost(ServerFailed):
    """No ComfyUI answers at the address, or not any more."""


def hold_port():
    """A socket that reserves a free port until ComfyUI listens there.

    On Linux a program that sets SO_REUSEADDR, as ComfyUI does, can bind a port that is bound but not listened on.
    No other program can take the port meanwhile. On other systems the socket must be closed first.
    """
    held = socket.socket()
    if sys.platform == "linux":
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class ComfyServer:
    """Context manager: a ComfyUI process with this pack and no other, stopped on exit.

    Its models, inputs, outputs and settings are in a temporary folder and its database in memory, so that
    the user's ComfyUI is not touched; its log goes to `log`.

    arguments: more of ComfyUI's own, such as --front-end-root.
    cached_nodes: how many nodes' results ComfyUI keeps. The demo keeps none, because it times the same graph again.
    """

    def __init__(self, host, log, cached_nodes=0, arguments=()):
        self.host = host
        self.log = log
        self.arguments = arguments
        self.cached_nodes = cached_nodes
        self.process = None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="precisecache-", ignore_cleanup_errors=True)
        self.held_port = hold_port()
        self.port = self.held_port.getsockname()[1]
        if sys.platform != "linux":
            self.held_port.close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # a PYTHONPATH of the caller's must not put other modules before the host's own
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        try:
            with self.log.open("w", encoding="utf-8") as log:
                self.process = subprocess.Popen(
                    self._command(),
                    cwd=self.host,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        except BaseException:
            self.held_port.close()
            self.folder.cleanup()
            raise
        return self

    def _command(self):
        return [
            sys.executable,
            "main.py",
            *([] if torch.cuda.is_available() else ["--cpu"]),
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--disable-auto-launch",
            "--database-url",
            "sqlite:///:memory:",
            *self._folders(Path(self.folder.name)),
            *self.arguments,
        ]

    def _folders(self, base):
        """The arguments that load this pack alone and put every folder into `base`."""
        for name in ("user", "models", "input", "output", "temp", "custom_nodes"):
            (base / name).mkdir()
        return [
            "--base-directory",
            str(base),
            "--user-directory",
            str(base / "user"),
            *pack_path(base),
            "--disable-all-custom-nodes",
            "--whitelist-custom-nodes",
            ROOT.name,
            "--disable-api-nodes",
            *(["--cache-lru", str(self.cached_nodes)] if self.cached_nodes else ["--cache-none"]),
        ]

    def wait(self, seconds=600):
        """Wait until it answers. Raises ServerFailed if it exits or takes longer."""
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
        found = re.search(
            r"Traceback \(most recent call last\)(?:(?!Traceback).)*?Cannot import [^\n]*", self.log_text(), re.DOTALL
        )
        return found[0] if found else self.log_tail()

    def restart(self):
        """Stop it, if it has not ended, and start it again."""
        self.__exit__()
        self.__enter__()

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
    """A ComfyServer with the user's own models, inputs and nodes; its outputs go to a temporary folder."""

    def _folders(self, base):
        (base / "output").mkdir()
        is_installed = self.host in ROOT.parents
        # the folder "temp" is made inside the one named here
        return [
            "--output-directory",
            str(base / "output"),
            "--temp-directory",
            str(base),
            *([] if is_installed else pack_path(base, alone(base))),
        ]


class RunningServer:
    """A ComfyUI that is already running at "host:port"."""

    has_ended = False  # its process is not ours to watch

    def __init__(self, address):
        self.address = address

    def log_tail(self):
        return f"(the ComfyUI at {self.address} logs where it was started; --comfyui PATH starts one for the graph)"

    import_error = log_tail

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def alone(base):
    """A folder in `base` with a link to this pack, so that other packs beside the clone are not loaded."""
    folder = base / "custom_nodes"
    folder.mkdir()
    if os.name == "nt":  # ordinary users may not make symbolic links there
        import _winapi

        _winapi.CreateJunction(str(ROOT), str(folder / "PreciseCache"))
    else:
        (folder / "PreciseCache").symlink_to(ROOT)
    return folder


def pack_path(base, folder=ROOT.parent):
    """The arguments that make ComfyUI look for custom nodes in `folder`."""
    paths = base / "paths.yaml"  # JSON is YAML
    paths.write_text(json.dumps({"precisecache": {"custom_nodes": str(folder)}}), encoding="utf-8")
    return ["--extra-model-paths-config", str(paths)]
