"""What a Ray session of Raylight needs on one machine: its own folder and ports, and an end that leaves no process."""

import contextlib
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psutil

from testkit.raylight_on_cpu import SECONDS


@dataclass(frozen=True)
class Topology:
    """How RayInitializer divides the GPUs: degrees of each parallelism; fsdp: weights are divided, too."""

    gpus: int = 2
    ulysses: int = 1
    ring: int = 1
    cfg: int = 1
    dp: int = 1
    fsdp: bool = False

    def __str__(self):
        degrees = [
            f"{name}{getattr(self, name)}" for name in ("ulysses", "ring", "cfg", "dp") if getattr(self, name) > 1
        ]
        return "-".join([*degrees, *["fsdp"] * self.fsdp]) or f"gpus{self.gpus}"

    def inputs(self):
        """All inputs of RayInitializer."""
        return dict(
            ray_cluster_address="local",
            ray_cluster_namespace="default",
            GPU=self.gpus,
            ulysses_degree=self.ulysses,
            ring_degree=self.ring,
            cfg_degree=self.cfg,
            dp_degree=self.dp,
            sync_ulysses=False,
            clear_vram_after_sampling=False,
            FSDP=self.fsdp,
            FSDP_CPU_OFFLOAD=False,
            XFuser_attention="TORCH_FLASH",  # with TORCH_MATH the ring is wrong
            skip_comm_test=True,
            use_mmap=False,  # with it Raylight does not read a file's metadata
        )


@contextlib.contextmanager
def ray_environment(groups=1, collective_seconds=60):
    """The environment of a driver that starts Ray for Raylight; yields the session's folder.

    groups: of ranks that find each other at ports of their own. collective_seconds: the longest wait of a rank for
    the others.
    """
    # short, because Ray puts sockets into it; in its default Raylight deletes the files of other sessions
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp" if os.path.isdir("/tmp") else None))
    environment = {
        "RAYLIGHT_RAY_TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # else other programs delay the workers, who wait for each other
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(groups)),
        SECONDS: str(collective_seconds),
    }
    try:
        with mock.patch.dict(os.environ, environment):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count):
    """The first of `count` consecutive ports that nobody listens on."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            for other in range(port + 1, port + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", other))
            return port


def children(pid=None):
    """All processes that this one, or `pid`, started, and theirs."""
    return psutil.Process(pid).children(recursive=True)


def end_processes(processes, seconds=10):
    """Wait for processes that were asked to end; those that stay are killed."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=seconds)
