#!/usr/bin/env python3
"""PreciseCache's two commands. Each one sets up what it needs, then does its job.

    python3 run.py demo [options]       sample the bundled video model without and with the cache
    python3 run.py test [pytest args]   run every test that can run on this machine

Needs Python 3.10 or newer and nothing else. Everything is installed into .venv beside this
file; delete that folder to start over. `python3 run.py demo --help` lists the demo's options.
"""

import ast
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "precisecache-setup.txt"  # the requirements met, so that the next run need not ask pip
OLDEST_PYTHON = (3, 10)
# ComfyUI does not start when torchaudio was built for another CUDA than torch, and torchaudio does
# not name its torch, so that pip cannot know. These three were run together.
FITTING_TORCH = ("torch==2.11.*", "torchvision==0.26.*", "torchaudio==2.11.*")


class SetupError(Exception):
    """The environment could not be made; the message says what to do."""


def say(text):
    print(f"[run.py] {text}", flush=True)


def main(arguments):
    if sys.version_info < OLDEST_PYTHON:
        print("PreciseCache needs Python 3.10 or newer, this is {}.".format(sys.version.split()[0]))
        return 2
    if not arguments or arguments[0] not in ("demo", "test"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    command, rest = arguments[0], arguments[1:]
    sys.path.insert(0, str(ROOT))
    from tools.comfyui.locate import comfyui_version, find_comfyui

    try:
        host = demo_host(rest) if command == "demo" else find_comfyui(ROOT)
        say(f"Python {sys.version.split()[0]} at {sys.executable}")
        if host:
            say(f"ComfyUI {comfyui_version(host)} at {host}")
        else:
            say("no ComfyUI: " + ("the demo samples in plain PyTorch" if command == "demo"
                                  else "tests that need one will be skipped"))
        set_up(host)
    except (SetupError, ValueError) as error:
        print(f"\nrun.py: {error}", file=sys.stderr)
        return 1
    environment = dict(os.environ)
    if host:
        environment["COMFYUI_PATH"] = str(host)
    if command == "demo":
        return run([VENV_PYTHON, "-m", "tools.demo", *rest], environment)
    # the tests' tensors are too small to share between cores; threads only make them wait
    environment.setdefault("OMP_NUM_THREADS", "1")
    # two at a time where there are two cores; more would wait for the host's memory, not for cores
    whole = ["tests", *(["-n", "2", "--dist", "loadfile"] if (os.cpu_count() or 1) > 1 else [])]
    return run([VENV_PYTHON, "-m", "pytest", "-c", "tests/pytest.ini", "--rootdir", "tests",
                *([] if names_tests(rest) else whole), *rest], environment)


def demo_host(arguments):
    """The ComfyUI the demo will use, or None; wrong options end the program here, before any setup."""
    from tools.demo.options import parse

    return parse(arguments).host


def names_tests(arguments):
    """Whether the pytest arguments already say which files to run."""
    return any((ROOT / a.split("::")[0]).exists() for a in arguments if not a.startswith("-"))


def set_up(host):
    """Make .venv hold what the demo, the tests and the host need; quick where it already does."""
    requirements = own_requirements()
    files = [host / "requirements.txt"] if host else []
    wanted = requirements + [line.strip() for file in files for line in file.read_text("utf-8").splitlines()]
    if not is_working(VENV_PYTHON):
        make_venv()
    elif installed_before() >= set(wanted) and not missing_packages(wanted):
        say(f"environment {VENV}: everything is installed")
        return
    say(f"environment {VENV}: installing what is missing (the first time this may take minutes)")
    install(requirements, files, torch_constraints(host))
    if host and not torch_fits():
        say("torch, torchvision and torchaudio do not fit together: installing three that do")
        install(requirements, files, FITTING_TORCH)
        if not torch_fits():
            raise SetupError(f"ComfyUI needs torch, torchvision and torchaudio, and they cannot be imported in {VENV}. "
                             "Use the environment that your ComfyUI runs in: call run.py with its Python.")
    STAMP.write_text("\n".join(wanted) + "\n", encoding="utf-8")


def install(requirements, files, constraints):
    """Install requirements and requirement files into .venv, within the constraints."""
    command = [VENV_PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *requirements]
    for file in files:
        command += ["-r", file]
    if constraints:
        file = VENV / "precisecache-constraints.txt"
        file.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        command += ["-c", file]
    say("$ " + " ".join(str(part) for part in command))
    status = subprocess.run([str(part) for part in command], cwd=ROOT).returncode
    if status:
        raise SetupError(
            f"pip could not install the packages (exit status {status}); its own message is above. "
            "A network and some gigabytes of disk are needed the first time. "
            f"Run the same command again to go on, or delete {VENV} to start over.")


def installed_before():
    """The requirements that pip last met in .venv, as written."""
    return set(STAMP.read_text("utf-8").splitlines()) | {""} if STAMP.is_file() else set()


def own_requirements():
    """The packages of pyproject.toml that the demo and the tests need.

    pyproject.toml writes its lists as Python would, which is what spares a TOML reader here:
    Python 3.10 has none.
    """
    text = (ROOT / "pyproject.toml").read_text("utf-8")

    def group(name):
        found = re.search(rf"^{name} = (\[.*?\])$", text, re.MULTILINE | re.DOTALL)
        if not found:
            raise SetupError(f"pyproject.toml has no list {name}.")
        out = []
        for entry in ast.literal_eval(found[1]):
            extra = re.fullmatch(r"precisecache\[(\w+)\]", entry)
            out += group(extra[1]) if extra else [entry]
        return out

    return list(dict.fromkeys(group("dependencies") + group("test")))


def make_venv():
    """A virtual environment that sees this Python's own torch, if it has one."""
    if is_working(sys.executable) and Path(sys.prefix).resolve() == VENV.resolve():
        return
    torch_version = output_of(sys.executable, "import torch; print(torch.__version__)")
    is_inside_venv = sys.prefix != sys.base_prefix
    options = []
    if torch_version and (not is_inside_venv or sees_system_packages()):
        options.append("--system-site-packages")
    say(f"making {VENV}" + (f", which shares torch {torch_version} of {sys.executable}" if torch_version else ""))
    result = subprocess.run([sys.executable, "-m", "venv", *options, str(VENV)])
    if result.returncode or not is_working(VENV_PYTHON):
        raise SetupError(
            f"python -m venv could not make {VENV}; its own message is above. On Debian and Ubuntu install "
            f"python3-venv. If the folder is left from another Python, delete it.")
    if torch_version and is_inside_venv:
        share_packages()


def share_packages():
    """Let .venv see the packages of the environment that runs this file.

    An environment made inside another does not; a path file adds them, so that nothing
    is installed into an environment that is not ours.
    """
    target = output_of(VENV_PYTHON, "import sysconfig; print(sysconfig.get_path('purelib'))")
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(target) / "precisecache_shared.pth").write_text("\n".join(sorted(folders)) + "\n", encoding="utf-8")


def sees_system_packages():
    config = Path(sys.prefix) / "pyvenv.cfg"
    return config.is_file() and "include-system-site-packages = true" in config.read_text("utf-8").lower()


def torch_constraints(host):
    """Which torch pip may choose: the one that is there already, else one that ComfyUI starts with."""
    version = output_of(VENV_PYTHON, "import importlib.metadata as m; print(m.version('torch'))")
    if not version:
        return FITTING_TORCH if host else ()
    public = version.split("+")[0]
    major, minor = public.split(".")[:2]
    return (f"torch=={public}", f"torchaudio<{major}.{int(minor) + 1}")


def torch_fits():
    return output_of(VENV_PYTHON, "import torch, torchvision, torchaudio; print(1)") == "1"


def missing_packages(requirements):
    """Names among the requirements that .venv does not have, in any version."""
    found = (re.match(r"[A-Za-z0-9][\w.-]*", line) for line in requirements)
    names = sorted({name[0] for name in found if name})
    code = ("import sys, importlib.metadata as m\n"
            "have = {d.metadata['Name'].lower().replace('_', '-') for d in m.distributions() if d.metadata['Name']}\n"
            "print(*[n for n in sys.argv[1:] if n.lower().replace('_', '-') not in have])")
    return output_of(VENV_PYTHON, code, *names).split()


def output_of(python, code, *arguments):
    """What a line of Python prints in that interpreter, or "" if it fails."""
    result = subprocess.run([str(python), "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    return result.stdout.strip() if result.returncode == 0 else ""


def is_working(python):
    return Path(python).is_file() and output_of(python, "import pip; print(1)") == "1"


def run(command, environment):
    """Run to the end and return its exit status; being stopped stops it too."""
    command = [str(part) for part in command]
    say("$ " + " ".join(["python", *command[1:]]))
    child = subprocess.Popen(command, cwd=ROOT, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            continue  # the child got it as well and is cleaning up
        return status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
