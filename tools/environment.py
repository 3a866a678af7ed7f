"""The environment that run.py's commands run in: .venv, with the tested versions. Standard library only."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from tools import torch_build
from tools.phases import Phase
from tools.pip_output import TAIL, progress_options, run_pip
from tools.versions import FOLDER, host_requirements, own_requirements, raylight_requirements

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "precisecache-setup.txt"  # what is installed, so that the next run need not ask pip
LOG = VENV / "precisecache-pip.log"  # what pip printed in the last set-up
VERBOSE = "PRECISECACHE_VERBOSE"  # environment variable, set by run.py --verbose: pip's output is shown
PREFIX = "[run.py] "


class SetupError(Exception):
    """The environment could not be made; the message says what to do."""


def say(text):
    print(PREFIX + text, flush=True)


def set_up(host, is_renewed=False):
    """Install what the commands, the host and, if RAYLIGHT_PATH is set, Raylight need into .venv; quick if it is there.

    is_renewed: install the newest version of everything but torch.
    """
    requirements, asked = own_requirements() + raylight_requirements(), host_requirements(host)
    files = [host / "requirements.txt"] if host else []
    tested = [line for path in sorted(FOLDER.glob("*.txt")) for line in path.read_text("utf-8").splitlines()]
    wanted = [*requirements, *asked, *tested]
    if not is_working(VENV_PYTHON):
        make_venv()
    elif not is_renewed and installed_before() >= set(wanted) and not missing_packages(requirements + asked):
        say(f"environment {VENV}: everything is installed")
        return
    say(f"environment {VENV}: installing what is missing (the first time this may take minutes)")
    if not is_verbose():
        say(f"pip's output goes to {LOG}")
        LOG.unlink(missing_ok=True)
    options = ["--upgrade", "--upgrade-strategy", "eager"] if is_renewed else []
    pins = constraints(asked, is_held=not is_renewed)
    build = choose_build(pins, files) if missing_packages(["torch"]) else torch_build.TorchBuild()
    try:
        install(requirements, files, build.pin(pins), options)
    except SetupError:
        if not host or is_renewed:
            raise
        say("trying again without the tested versions: this ComfyUI may need others")
        install(requirements, files, build.pin(constraints(asked, is_held=False)))
    if host and not torch_fits():
        say("torch, torchvision and torchaudio do not match: installing versions that do")
        pins = constraints(asked, is_torch_kept=False)
        # never a mixture of builds, which pip's versions do not tell apart
        build = torch_build.TorchBuild(choose_build(pins, files).is_cpu or False)
        install(requirements, files, build.pin(pins))
        if not torch_fits():
            raise SetupError(
                f"ComfyUI needs torch, torchvision and torchaudio, but they cannot be imported in {VENV}. "
                "Start run.py with the Python that your ComfyUI runs in."
            )
    STAMP.write_text("\n".join(wanted) + "\n", encoding="utf-8")


def choose_build(pins, files):
    """The torch_build.TorchBuild that suits this machine, which is printed. files: ComfyUI's requirement files."""
    options = torch_build.index_options(files)
    needed = torch_build.PACKAGES if files else ("torch",)
    build = torch_build.choose(
        pins, lambda name: torch_build.offered_versions(VENV_PYTHON, name, options), needed=needed
    )
    if build.reason:
        say(build.reason)
    return build


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
    if is_verbose():
        command = pip_command(VENV_PYTHON, requirements, files, file, options)
        say("$ " + " ".join(command))
        status, place = subprocess.run(command, cwd=ROOT).returncode, "above"
    else:
        options = [*options, *progress_options(output_of(VENV_PYTHON, "import pip; print(pip.__version__)"))]
        command = pip_command(VENV_PYTHON, requirements, files, file, options)
        status, last = run_pip(command, ROOT, LOG, len(constraints), count_installed, PREFIX)
        if status:
            print(*last, sep="\n", file=sys.stderr, flush=True)
        place = f"above (its last {TAIL} lines; all of them are in {LOG})"
    if status:
        raise SetupError(
            f"pip could not install the packages (exit status {status}); its own message is {place}. "
            "The first installation needs a network and some gigabytes of disk. "
            f"Run the same command again to go on, or delete {VENV} to start over."
        )


def is_verbose():
    return bool(os.environ.get(VERBOSE))


def count_installed():
    """How many packages .venv itself has."""
    return sum(1 for folder in ("lib/python*", "Lib") for _ in VENV.glob(f"{folder}/site-packages/*.dist-info"))


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
    shared = f", which shares torch {torch_version} of {sys.executable}" if torch_version else ""
    with Phase(f"making {VENV}{shared}", PREFIX):
        result = subprocess.run(
            [sys.executable, "-m", "venv", *options, str(VENV)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    if result.returncode or not is_working(VENV_PYTHON):
        print(result.stdout, file=sys.stderr, flush=True)
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
    with Phase("importing torch, torchvision and torchaudio", PREFIX):
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
