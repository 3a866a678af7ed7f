"""The machine that the figures were measured on."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch


def processor():
    """The processor's marketing name, or its architecture if the system does not report one."""
    if platform.system() == "Linux":
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        result = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if result.stdout.strip():
            return result.stdout.strip()
    return platform.processor() or platform.machine()


def describe_machine():
    """Processor, cores, threads, system, and the GPU if torch uses one."""
    threads = os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()
    text = f"{processor()}, {os.cpu_count()} cores (threads: {threads}), {platform.system()} {platform.machine()}"
    return f"{torch.cuda.get_device_name()}, {text}" if torch.cuda.is_available() else text


def head(name, *facts):
    """The first lines of every result file: command line, versions and machine."""
    facts = ", ".join((f"python {platform.python_version()}", f"torch {torch.__version__}", *facts))
    return [f"command: python3 run.py bench {name} {' '.join(sys.argv[1:])}".rstrip(), facts]
