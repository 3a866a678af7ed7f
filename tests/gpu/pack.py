"""Fills .gpu with what a machine without a network needs: ComfyUI's source and wheels."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tools.versions import requirement_classes  # noqa: E402

# the machine has these, built for its GPU, and all packages that only they need
TORCH = {"torch", "torchvision", "torchaudio", "triton"}
# requirements of ComfyUI that are not used here: its page, its database, and those of unused nodes
UNUSED = {
    "comfyui-frontend-package",
    "comfyui-workflow-templates",
    "comfyui-embedded-docs",
    "alembic",
    "sqlalchemy",
    "kornia",
    "spandrel",
    "pyopengl",
    "comfy-angle",
    "requests",
}
OURS = ("einops", "numpy", "safetensors", "pytest")
# the wheel with CUDA kernels takes 56 MiB; the plain one has the same functions in Triton and torch
PLAIN = {"comfy-kitchen"}
# left out of ComfyUI's top folder, and of all its folders; no text encoder is loaded, as prompts are tensors
TOP_LEFT_OUT = (
    "models",
    "custom_nodes",
    "input",
    "output",
    "temp",
    "user",
    "blueprints",
    "script_examples",
    "tests",
    "tests-unit",
    "comfy_api_nodes",
    "openapi.yaml",
)
LEFT_OUT = ("merges.txt", "vocab.*", "tokenizer.json", "tokenizer.model", "__pycache__", ".*", "*.pyc", "*.safetensors")
LIMIT = 64 << 20  # bytes of .gpu and of the tree together, which are carried to the other machine


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement):
    return normalised(re.match(r"[A-Za-z0-9][\w.-]*", requirement)[0])


def closure(roots, known):
    """{name: version} of packages and everything they depend on, as installed in this environment.

    known: normalised names that the other machine has; they, and what only they depend on, are left out.
    """
    _, Requirement = requirement_classes()

    found, waiting = {}, [name_of(root) for root in roots]
    while waiting:
        name = waiting.pop()
        if name in found or name in known:
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed here: pack with the Python that runs ComfyUI")
        found[name] = dist.version
        needs = map(Requirement, dist.requires or ())
        waiting += [normalised(r.name) for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def names_in(file):
    """Package names in a file, one per line or separated by commas; versions are ignored."""
    return {
        name_of(entry.strip())
        for entry in re.split(r"[\n,]", file.read_text("utf-8"))
        if re.match(r"\s*[A-Za-z0-9]", entry)
    }


def download(packages, folder, python):
    """Wheels of {name: version} for Linux on x86-64 and a Python version; ends the program if pip cannot get one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    linux = [
        "--implementation=cp",
        "--platform=manylinux2014_x86_64",
        "--platform=manylinux1_x86_64",
        *(f"--platform=manylinux_2_{n}_x86_64" for n in (39, 35, 34, 31, 28, 27, 24, 17)),
    ]
    plain = ["--implementation=py", "--abi=none", "--platform=any"]
    for tags, is_plain in ((linux, False), (plain, True)):
        pinned = [f"{name}=={version}" for name, version in packages.items() if (name in PLAIN) == is_plain]
        if (
            pinned
            and subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--no-deps",
                    "--only-binary=:all:",
                    "--quiet",
                    "--disable-pip-version-check",
                    f"--python-version={python}",
                    *tags,
                    "-d",
                    str(folder),
                    *pinned,
                ]
            ).returncode
        ):
            sys.exit("pip could not get these wheels; its own message is above")


def archive_source(host, target):
    """Write a ComfyUI to target.tar.gz, without the parts that only its users and its page need."""

    def left_out(folder, names):
        patterns = LEFT_OUT + TOP_LEFT_OUT if Path(folder) == host else LEFT_OUT
        return shutil.ignore_patterns(*patterns)(folder, names)

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(host, Path(folder, "ComfyUI"), ignore=left_out)
        return Path(shutil.make_archive(str(target), "gztar", folder, "ComfyUI"))


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def tree_size(root):
    """Bytes of the tree's own files, those that git does not ignore."""
    told = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, text=True
    )
    return sum((root / name).stat().st_size for name in told.stdout.split("\0") if name and (root / name).is_file())


def main(bundle, host):
    parser = argparse.ArgumentParser(prog="tests/gpu pack", description=__doc__)
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python")
    parser.add_argument("--have", type=Path, help="file with names of packages that it has, such as a `pip freeze`")
    args = parser.parse_args(sys.argv[2:])
    if host is None:
        sys.exit("no ComfyUI to pack: set COMFYUI_PATH")
    known = TORCH | UNUSED | (names_in(args.have) if args.have else set())
    requirements = [
        line for line in (host / "requirements.txt").read_text("utf-8").splitlines() if re.match(r"[A-Za-z0-9]", line)
    ]
    packages = closure([*requirements, *OURS], known)
    print(f"packing {host} and {', '.join(f'{n} {v}' for n, v in sorted(packages.items()))}", flush=True)
    download(packages, bundle / "wheels", args.python)
    source = archive_source(host, bundle / "ComfyUI")
    parts = {
        "wheels": size(bundle / "wheels"),
        "ComfyUI": source.stat().st_size,
        "the tree": tree_size(bundle.parent),
    }
    total = sum(parts.values())
    print(", ".join(f"{name} {n / 2**20:.1f} MiB" for name, n in parts.items()) + f": {total / 2**20:.1f} MiB in all")
    if total > LIMIT:
        largest = sorted((bundle / "wheels").iterdir(), key=lambda file: -file.stat().st_size)[:5]
        print(
            f"More than {LIMIT >> 20} MiB. The largest wheels: {', '.join(file.name for file in largest)}. "
            "Name packages that the other machine has in a file for --have."
        )
        return 1
    return 0
