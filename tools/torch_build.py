"""Which build of torch a new .venv gets on a machine without a GPU. Standard library only.

PyPI's torch for Linux brings CUDA's libraries, 2 GB that a machine without a GPU cannot use. Where an index or folder
that the user configured for pip has CPU builds of the tested versions, these are taken. No index is added.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# they work together only in the same build
PACKAGES = ("torch", "torchvision", "torchaudio")
LOCAL = "+cpu"
# tested with the builds for CUDA: the CPU builds do without, or need another setuptools
CUDA_PARTS = re.compile(r"(triton|nvidia-.*|cuda-.*|setuptools)==")
SETTING = "PRECISECACHE_TORCH"
INDEX_OPTION = re.compile(r"(-i|--index-url|--extra-index-url|-f|--find-links|--no-index)\b")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class TorchBuild:
    """The build to install. is_cpu: the CPU builds alone, or none of them; None: what pip takes by itself.

    reason: a line for the user, or "".
    """

    is_cpu: bool | None = None
    reason: str = ""

    def pin(self, lines):
        """The lines of a constraints file, changed so that pip installs this build."""
        if self.is_cpu is None:
            return lines
        pinned = [f"{line}{LOCAL}" if self.is_cpu else f"{line},!={version_of(line)}{LOCAL}" for line in lines]
        return [
            new if is_pin_of_torch(line) else line
            for line, new in zip(lines, pinned)
            if not (self.is_cpu and CUDA_PARTS.match(line))
        ]


def version_of(line):
    return line.partition("==")[2]


def is_pin_of_torch(line):
    return line.split("==")[0] in PACKAGES and "==" in line


def has_gpu(files: Callable[[str], bool] = os.path.exists, programs: Callable = shutil.which):
    """Whether there are signs of a GPU that torch could use: NVIDIA's driver, or AMD's ROCm."""
    signs = ("/dev/nvidia0", "/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1", "/dev/kfd")
    return bool(programs("nvidia-smi")) or any(map(files, signs))


def choose(pins, offers, needed=PACKAGES, is_gpu=None, setting=None, system=None):
    """The TorchBuild for a .venv without torch.

    pins: lines of the constraints file. offers(name): the versions that the user's indexes have of a package.
    needed: which of PACKAGES will be installed.
    is_gpu, setting, system: this machine's if None; setting is $PRECISECACHE_TORCH, which may be cpu or cuda.
    Raises ValueError for another setting.
    """
    setting = os.environ.get(SETTING, "") if setting is None else setting
    if setting not in ("", "cpu", "cuda"):
        raise ValueError(f"{SETTING} must be cpu, cuda or empty, got {setting!r}.")
    pinned = {line.split("==")[0]: version_of(line) for line in pins if is_pin_of_torch(line)}
    # ComfyUI may ask for other versions. PyPI's builds for Windows and macOS have no CUDA
    if len(pinned) < len(PACKAGES) or (system or platform.system()) != "Linux":
        return TorchBuild()
    if setting == "cuda":
        return TorchBuild(False, f"{SETTING} is cuda: not looking for CPU builds of torch")
    if not setting and (has_gpu() if is_gpu is None else is_gpu):
        return TorchBuild()
    why = f"{SETTING} is cpu" if setting else "no GPU found"
    wanted = {name: f"{pinned[name]}{LOCAL}" for name in needed}
    missing = [f"{name} {version}" for name, version in wanted.items() if version not in offers(name)]
    if missing:
        return TorchBuild(
            # pip would take the CPU builds that there are, and the three would not fit
            None if len(missing) == len(needed) else False,
            f"{why}, but your package indexes lack {', '.join(missing)}: taking the builds with CUDA, about 2 GB more "
            f"(PIP_EXTRA_INDEX_URL={CPU_INDEX} adds PyTorch's CPU builds)",
        )
    taken = ", ".join(f"{name} {version}" for name, version in wanted.items())
    return TorchBuild(True, f"{why}: taking {taken} from your package index, about 2 GB less than with CUDA")


def index_options(files):
    """The lines of requirement files that name an index, as options for pip."""
    lines = [line.strip() for path in files for line in Path(path).read_text("utf-8").splitlines()]
    return [part for line in lines if INDEX_OPTION.match(line) for part in shlex.split(line, comments=True)]


def offered_versions(python, name, options=()):
    """The versions of a package for this Python and system at the indexes that pip is configured with.

    An empty set if pip does not answer, or in an unknown form.
    """
    command = [str(python), "-m", "pip", "index", "versions", "--disable-pip-version-check", name, *options]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    found = re.search(r"^Available versions: (.+)$", result.stdout, re.MULTILINE)
    return {version.strip() for version in found[1].split(",")} if found else set()
