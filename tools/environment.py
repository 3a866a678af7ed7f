"""The environment that run.py's commands run in: .venv, with the tested versions. Standard library only."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from tools.versions import FOLDER, host_requirements, own_requirements

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "precisecache-setup.txt"  # what is installed, so that the next run need not ask pip


class SetupError(Exception):
    """The environment could not be made; the message says what to do."""


def say(text):
    print(f"[run.py] {text}", flush=True)


def set_up(host, is_renewed=False):
    """Install what the commands and the host need into .venv; quick if all of it is there.

    is_renewed: install the newest version of everything but torch.
    """
    requirements, asked = own_requirements(), host_requirements(host)
    files = [host / "requirements.txt"] if host else []
    tested = [line for path in sorted(FOLDER.glob("*.txt")) for line in path.read_text("utf-8").splitlines()]
    wanted = [*requirements, *asked, *tested]
    if not is_working(VENV_PYTHON):
        make_venv()
    elif not is_renewed and installed_before() >= set(wanted) and not missing_packages(requirements + asked):
        say(f"environment {VENV}: everything is installed")
        return
    say(f"environment {VENV}: installing what is missing (the first time this may take minutes)")
    options = ["--upgrade", "--upgrade-strategy", "eager"] if is_renewed else []
    try:
        install(requirements, files, constraints(asked, is_held=not is_renewed), options)
    except SetupError:
        if not host or is_renewed:
            raise
        say("trying again without the tested versions: this ComfyUI may need others")
        install(requirements, files, constraints(asked, is_held=False))
    if host and not torch_fits():
        say("torch, torchvision and torchaudio do not match: installing versions that do")
        install(requirements, files, constraints(asked, is_torch_kept=False))
        if not torch_fits():
            raise SetupError(
                f"ComfyUI needs torch, torchvision and torchaudio, but they cannot be imported in {VENV}. "
                "Start run.py with the Python that your ComfyUI runs in."
            )
    STAMP.write_text("\n".join(wanted) + "\n", encoding="utf-8")


def constraints(asked, **options):
    """The result of `versions.constraints` in .venv's Python. asked: ComfyUI's requirements."""
    code = (
        "import sys; from tools.versions import constraints; "
        f"print(*constraints(sys.argv[1:], **{options!r}), sep='\\n')"
    )
    lines = output_of(VENV_PYTHON, code, *asked).splitlines()
    if not lines:
        raise SetupError(f"{VENV_PYTHON} could not read the tested versions in {FOLDER}. Delete {VENV} to start over.")
    return lines


def install(requirements, files, constraints, options=()):
    """Install requirements and requirement files into .venv, within the constraints."""
    file = VENV / "precisecache-constraints.txt"
    file.write_text("\n".join(constraints) + "\n", encoding="utf-8")
    command = pip_command(VENV_PYTHON, requirements, files, file, options)
    say("$ " + " ".join(command))
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        raise SetupError(
            f"pip could not install the packages (exit status {status}); its own message is above. "
            "The first installation needs a network and some gigabytes of disk. "
            f"Run the same command again to go on, or delete {VENV} to start over."
        )


def pip_command(python, requirements, files, constraints, options=()):
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *options, *requirements]
    for file in files:
        command += ["-r", file]
    return [str(part) for part in (*command, "-c", constraints)]


def installed_before():
    """The requirements that pip last installed into .venv, as they were written."""
    return set(STAMP.read_text("utf-8").splitlines()) | {""} if STAMP.is_file() else set()


def make_venv():
    """Make .venv, which sees this Python's own torch if it has one."""
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
            f"python3-venv. If another Python made the folder, delete it."
        )
    if torch_version and is_inside_venv:
        share_packages()


def share_packages():
    """Let .venv see the packages of the environment that runs this file.

    A virtual environment does not see the packages of the one that it was made from. A .pth file
    adds them, so that nothing is installed into an environment that is not ours.
    """
    target = output_of(VENV_PYTHON, "import sysconfig; print(sysconfig.get_path('purelib'))")
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(target) / "precisecache_shared.pth").write_text("\n".join(sorted(folders)) + "\n", encoding="utf-8")


def sees_system_packages():
    config = Path(sys.prefix) / "pyvenv.cfg"
    return config.is_file() and "include-system-site-packages = true" in config.read_text("utf-8").lower()


def torch_fits():
    return output_of(VENV_PYTHON, "import torch, torchvision, torchaudio; print(1)") == "1"


def missing_packages(requirements):
    """Names of the required packages of which .venv has no version."""
    found = (re.match(r"[A-Za-z0-9][\w.-]*", line) for line in requirements)
    names = sorted({name[0] for name in found if name})
    code = (
        "import sys, importlib.metadata as m\n"
        "have = {d.metadata['Name'].lower().replace('_', '-') for d in m.distributions() if d.metadata['Name']}\n"
        "print(*[n for n in sys.argv[1:] if n.lower().replace('_', '-') not in have])"
    )
    return output_of(VENV_PYTHON, code, *names).split()


def output_of(python, code, *arguments):
    """What the code prints in that Python, or "" if it fails."""
    result = subprocess.run([str(python), "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    return result.stdout.strip() if result.returncode == 0 else ""


def is_working(python):
    return Path(python).is_file() and output_of(python, "import pip; print(1)") == "1"


def run(command, environment, folder=ROOT):
    """Run a command to its end and return its exit status; Ctrl+C and SIGTERM stop the command too."""
    command = [str(part) for part in command]
    say("$ " + " ".join(["python", *command[1:]]))
    child = subprocess.Popen(command, cwd=folder, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    is_interrupted = False
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            is_interrupted = True  # the child got the signal too and is cleaning up
            continue
        return 130 if is_interrupted else status if status >= 0 else 128 - status
