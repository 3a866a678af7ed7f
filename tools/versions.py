"""The tested versions: which packages the commands need, and which version of each the tests ran with.

`tools/tested/` holds a pip constraints file for each Python that the tests ran on. A newer Python uses the
last one. Standard library only, except for what runs in .venv: run.py imports it before anything is installed.
"""

import argparse
import ast
import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

from tools.comfyui.locate import comfyui_version, find_comfyui

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).with_name("tested")
# a torch that is already installed is kept, with its own versions of these
TORCH = re.compile(r"(torch|torchvision|torchaudio|triton|sympy|mpmath|setuptools|nvidia-.*|cuda-.*)$")


def own_requirements():
    """The packages of pyproject.toml that the commands need."""
    return list(dict.fromkeys(group("dependencies") + group("dev")))


def raylight_requirements():
    """The packages that Raylight needs, for its tests; none where RAYLIGHT_PATH does not name a checkout of it."""
    return group("raylight") if os.environ.get("RAYLIGHT_PATH") else []


def group(name):
    """A list of pyproject.toml, which are written as Python lists, because Python 3.10 has no TOML reader."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(rf"^{name} = (\[.*?\])$", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"pyproject.toml has no list {name}.")
    out = []
    for entry in ast.literal_eval(found[1]):
        extra = re.fullmatch(r"precisecache\[(\w+)\]", entry)
        out += group(extra[1]) if extra else [entry]
    return out


def host_requirements(host):
    """The lines of ComfyUI's requirements.txt that name a package."""
    lines = (host / "requirements.txt").read_text("utf-8").splitlines() if host else []
    return [line.strip() for line in lines if re.match(r"\s*[A-Za-z0-9]", line)]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def tested_file(python=sys.version_info):
    """The constraints file of this Python, or of the newest one before it."""
    minors = [int(path.stem.removeprefix("python3.")) for path in FOLDER.glob("python3.*.txt")]
    return FOLDER / f"python3.{max(minor for minor in minors if minor <= python[1])}.txt"


def read(path):
    """{package: version} of a constraints file."""
    lines = (line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def torch_here():
    """The version of the torch that this Python sees, or None."""
    try:
        return importlib.metadata.version("torch").split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def requirement_classes():
    """(InvalidRequirement, Requirement) of `packaging`, or of pip's own copy before anything is installed."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        # not where it can be avoided: pip keeps setuptools from replacing distutils, which inductor needs
        from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
    return InvalidRequirement, Requirement


def left_out(held, requirements=(), torch=None):
    """{package: reason} of the tested versions that are not pinned on this machine.

    requirements: ComfyUI's. torch: the version to keep, None for the tested one.
    """
    InvalidRequirement, Requirement = requirement_classes()
    reasons = {}
    if torch not in (None, held["torch"]):
        reasons = {name: f"torch {torch} is already installed" for name in held if TORCH.match(name)}
    for line in requirements:
        try:
            wanted = Requirement(line.split(" #")[0])
        except InvalidRequirement:
            continue  # a pip option, not a package
        name = canonical(wanted.name)
        is_meant = wanted.marker is None or wanted.marker.evaluate()
        if is_meant and name in held and not wanted.specifier.contains(held[name], prereleases=True):
            # a package's parts, such as comfyui-workflow-templates-core, go with it
            parts = (n for n in held if n == name or n.startswith(f"{name}-") or name == "torch" and TORCH.match(n))
            reasons.update({part: f"ComfyUI asks for {line}" for part in parts})
    return reasons


def constraints(requirements=(), is_torch_kept=True, is_held=True):
    """The lines of the constraints file that pip gets for this Python.

    requirements: ComfyUI's. is_torch_kept: keep a torch that is already installed. is_held: pin the other
        packages too, not only torch.
    """
    held = read(tested_file())
    torch = torch_here() if is_torch_kept else None
    left = left_out(held, requirements, torch)
    lines = [
        f"{name}=={version}" for name, version in held.items() if name not in left and (is_held or TORCH.match(name))
    ]
    if torch and "torch" in left:
        major, minor = torch.split(".")[:2]
        lines += [f"torch=={torch}", f"torchaudio<{major}.{int(minor) + 1}"]
    return lines


def installed(requirements):
    """{package: version} of the requirements and all that they require in turn, as far as they are installed."""
    from packaging.requirements import InvalidRequirement, Requirement

    found, seen, todo = {}, set(), [(line, ()) for line in requirements]
    while todo:
        line, extras = todo.pop()
        try:
            wanted = Requirement(line.split(" #")[0])
            distribution = importlib.metadata.distribution(wanted.name)
        except (InvalidRequirement, importlib.metadata.PackageNotFoundError):
            continue
        is_meant = wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in extras or ("",))
        key = canonical(wanted.name), frozenset(wanted.extras)
        if is_meant and key not in seen:
            seen.add(key)
            found[key[0]] = distribution.version.split("+")[0]
            todo += [(line, ("", *wanted.extras)) for line in distribution.requires or ()]
    return found


def differences(requirements=()):
    """A line for each difference between installed and tested versions. requirements: ComfyUI's, if there is one."""
    held = read(tested_file())
    left = left_out(held, requirements, torch_here())
    own, whole = installed(own_requirements()), installed([*own_requirements(), *requirements])
    lines = [
        f"{name} {version} is installed, {held[name]} was tested"
        for name, version in whole.items()
        if name in held and version != held[name] and name not in left
    ]
    lines += [
        f"{name} {version} is installed, no version was tested"
        for name, version in own.items()
        if name not in held and name not in left and not (TORCH.match(name) and "torch" in left)
    ]
    if requirements and not left:
        lines += [f"{name} {held[name]} was tested, none is installed" for name in held if name not in whole]
    return sorted(lines)


def write(host):
    """Write the constraints file of this Python from what is installed."""
    found = sorted(installed([*own_requirements(), *host_requirements(host)]).items())
    lines = [
        f"# Tested with Python {platform.python_version()} on {platform.system()} {platform.machine()} "
        f"and ComfyUI {comfyui_version(host)}.",
        "# Written by `python3 run.py versions`; see CONTRIBUTING.md.",
        "# torch and what comes with it: left out where the machine has another torch already",
    ]
    lines += [f"{name}=={version}" for name, version in found if TORCH.match(name)]
    lines += ["# all others"] + [f"{name}=={version}" for name, version in found if not TORCH.match(name)]
    path = FOLDER / f"python3.{sys.version_info[1]}.txt"
    FOLDER.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="run.py versions", description="Compare the packages in .venv with the tested versions in tools/tested."
    )
    make = parser.add_mutually_exclusive_group()
    make.add_argument("--write", action="store_true", help="write the file of this Python from what is installed")
    make.add_argument(
        "--update",
        action="store_true",
        help="install the newest version of all but torch, then write the file; run the tests afterwards",
    )
    return parser.parse_args(arguments)


def main():
    options, host = parse(), find_comfyui(ROOT)
    if options.write or options.update:
        if host is None:
            print("versions: no ComfyUI found, and the file lists its packages too: set COMFYUI_PATH", file=sys.stderr)
            return 2
        print(f"wrote {write(host)}")
    requirements = host_requirements(host)
    for name, reason in left_out(read(tested_file()), requirements, torch_here()).items():
        print(f"{name} is not pinned: {reason}")
    found = differences(requirements)
    print(*found or [f"{sys.executable} has the tested versions of {tested_file().relative_to(ROOT)}"], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
