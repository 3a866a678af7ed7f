"""Everything that needs a GPU, in one command: `python3 tests/gpu`.

Runs the tests of this folder and two benchmarks on a machine with a GPU and without a network, in
under ten minutes, and keeps what they print. `python3 tests/gpu pack` prepares the ignored folder
.gpu on a machine with a network. More is in README.md in this folder.

Exit status: 0 if all that ran passed, 1 if something failed or was cut short, 2 if something is
missing, 3 if no GPU was found and the rehearsal on the CPU passed.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUNDLE = ROOT / ".gpu"
sys.path.insert(0, str(ROOT))  # before this folder, which Python put first

from tools.comfyui.locate import comfyui_version, find_comfyui  # noqa: E402

PASSED, FAILED, MISSING, NO_GPU = 0, 1, 2, 3

PYTEST = ["-m", "pytest", "-c", str(HERE / "pytest.ini"), "--rootdir", str(HERE), "--confcutdir", str(HERE)]
COST = ["-m", "benchmarks.tables.cost", "--steps", "8", "--rounds", "1", "--size", "480p"]


@dataclass(frozen=True)
class Part:
    """One process of the command. limit: the seconds it may take; least: it does not run if fewer are left."""

    name: str
    arguments: list
    limit: int
    least: int = 20
    environment: dict = field(default_factory=dict)
    needs_gpu: bool = False


def parts(out, pytest_options):
    """The parts in the order in which they run: the quick and the decisive ones come first."""
    dynamic = [*PYTEST, str(HERE / "test_dynamic_offload.py"), *pytest_options]
    return [
        Part("tests", [*PYTEST, str(HERE), *pytest_options], 300),
        # in processes of their own: dynamic offload is turned on before torch is imported, and for every model
        Part("dynamic", dynamic, 60, environment={"PRECISECACHE_DYNAMIC_OFFLOAD": "roomy"}, needs_gpu=True),
        Part("dynamic-full", dynamic, 60, environment={"PRECISECACHE_DYNAMIC_OFFLOAD": "full"}, needs_gpu=True),
        Part("memory", ["-m", "benchmarks.tables.memory", "--out", str(out)], 90),
        Part("cost", [*COST, "--model", "wan1.3b", "--out", str(out)], 240),
        Part("cost-14b", [*COST, "--model", "wan14b", "--layers", "8", "--out", str(out)], 240, 60, needs_gpu=True),
    ]


class Log:
    """Prints lines and keeps them: in memory, and in a file as soon as its name is known."""

    def __init__(self):
        self.lines, self.file = [], None

    def say(self, text):
        print(text, flush=True)
        self.lines.append(text)
        if self.file:
            self._write([text], "a")

    def keep_in(self, file):
        self.file = file
        self._write(self.lines, "w")

    def _write(self, lines, mode):
        # at once, because whoever started this may end it at any time
        with open(self.file, mode, encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def wheels_missing(folder, installed):
    """Wheels of a folder whose package is not among the installed names."""
    return [wheel for wheel in sorted(folder.glob("*.whl")) if normalised(wheel.name.split("-")[0]) not in installed]


def installed_packages():
    """Normalised names of the packages that this Python has."""
    from importlib.metadata import distributions

    return {normalised(d.metadata["Name"]) for d in distributions() if d.metadata["Name"]}


def install_missing(target, log):
    """Put the packed wheels that this Python lacks into a folder; False if pip could not."""
    wheels = wheels_missing(BUNDLE / "wheels", installed_packages())
    if not wheels:
        return True
    log.say("installing for this run: " + ", ".join(w.name.split("-py3")[0].split("-cp3")[0] for w in wheels))
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--no-index",
            "--no-deps",
            "--no-compile",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
            str(target),
            *map(str, wheels),
        ],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        log.say(made.stdout + made.stderr)
    return made.returncode == 0


def machine(environment):
    """{gpu: name or None, count, torch, text}, from a process that imports torch; None if it cannot be imported."""
    code = (
        "import json, torch; from tools.machine import describe_machine; have = torch.cuda.is_available()\n"
        "print(json.dumps({'gpu': torch.cuda.get_device_name() if have else None, 'count': "
        "torch.cuda.device_count(), 'torch': torch.__version__, 'text': describe_machine()}))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    if told.returncode:
        print(told.stderr, file=sys.stderr)
        return None
    return json.loads(told.stdout.splitlines()[-1])


def label(gpu):
    """A GPU's name, made fit for a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", gpu or "no GPU")


def commit():
    """The commit of this tree, or "unknown"."""
    if shutil.which("git") is None:
        return "unknown"
    told = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def find_host(folder):
    """The ComfyUI to test: $COMFYUI_PATH, else the packed one, else the one that every command finds.

    folder: where the packed one is unpacked.
    """
    packed = BUNDLE / "ComfyUI.tar.gz"
    if os.environ.get("COMFYUI_PATH") or not packed.is_file():
        return find_comfyui(ROOT)
    shutil.unpack_archive(packed, folder, filter="data")
    return folder / "ComfyUI"


def run_part(part, limit, environment, log):
    """Run a part to its end or its limit; returns (exit status or None if it was cut, seconds)."""
    log.say(f"\n=== {part.name} (at most {limit:.0f} s): python3 {' '.join(short(a) for a in part.arguments)}")
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *part.arguments],
        cwd=ROOT,
        env=environment | part.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    cut = threading.Event()

    def stop():
        cut.set()
        # with all its children: a compiler's workers would hold the pipe open
        os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(limit, stop)
    timer.start()
    try:
        for line in child.stdout:
            log.say(line.rstrip("\n"))
        status = child.wait()
    except BaseException:
        stop()
        raise
    finally:
        timer.cancel()
    return None if cut.is_set() else status, time.monotonic() - start


def short(argument):
    """An argument with paths of this tree made relative to it."""
    return argument.replace(f"{ROOT}/", "")


def run(args):
    log = Log()
    start = time.monotonic()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="precisecache-gpu-") as target:
        environment = dict(os.environ, PYTHONUNBUFFERED="1")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (target, os.environ.get("PYTHONPATH"))))
        log.say(f"command: python3 tests/gpu {' '.join(sys.argv[1:])}".rstrip())
        if not install_missing(Path(target), log):
            log.say(
                "The packed wheels do not fit this Python: python3 tests/gpu pack --python "
                f"{sys.version_info.major}.{sys.version_info.minor}, where there is a network, packs others."
            )
            return MISSING
        found = machine(environment)
        if found is None:
            log.say("torch cannot be imported: run this with the Python that has it.")
            return MISSING
        host = find_host(Path(target))
        log.say(
            f"python {platform.python_version()}, torch {found['torch']}, ComfyUI "
            f"{comfyui_version(host) if host else 'not found'}, commit {commit()}"
        )
        log.say(f"{found['text']}; {found['count']} GPU(s)")
        if host is None:
            log.say("No ComfyUI: set COMFYUI_PATH, or python3 tests/gpu pack where one is installed.")
            return MISSING
        environment["COMFYUI_PATH"] = str(host)
        log.keep_in(out / f"{label(found['gpu'])}_{date.today()}.txt")
        if not found["gpu"]:
            log.say("NO GPU: a rehearsal on the CPU. It shows that the command runs, and nothing about a GPU.")
        results = run_parts(args, out, found["gpu"], start, environment, log)
    log.say(f"\n=== {time.monotonic() - start:.0f} s in all")
    for name, result in results.items():
        log.say(f"{name:14} {result}")
    print(f"kept in {log.file}")
    if any(result.startswith(("FAILED", "CUT")) for result in results.values()):
        return FAILED
    return PASSED if found["gpu"] else NO_GPU


def run_parts(args, out, gpu, start, environment, log):
    """{name: result as text} of every part that was asked for."""
    results = {}
    options = [] if gpu else ["--device", "cpu"]
    for part in parts(out, [*options, *(["-k", args.expression] if args.expression else [])]):
        if args.only and part.name not in args.only:
            continue
        left = args.seconds - (time.monotonic() - start)
        if part.needs_gpu and not gpu:
            results[part.name] = "not run: needs a GPU"
        elif left < part.least:
            results[part.name] = f"not run: {left:.0f} of {args.seconds} s were left"
        else:
            status, seconds = run_part(part, min(part.limit, left), environment, log)
            how = {None: "CUT SHORT", 0: "passed"}.get(status, f"FAILED with exit status {status}")
            results[part.name] = f"{how} in {seconds:.0f} s"
    return results


def main():
    if sys.argv[1:2] == ["pack"]:
        from pack import main as pack

        return pack(BUNDLE, find_comfyui(ROOT))
    parser = argparse.ArgumentParser(
        prog="tests/gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the log and the results")
    parser.add_argument("--seconds", type=int, default=570, help="time for all parts together")
    parser.add_argument("-k", dest="expression", help="of the tests, run only those that match, as pytest's -k")
    parser.add_argument("--only", nargs="*", choices=[part.name for part in parts("", [])], help="run these parts")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.path.append(str(HERE))
    sys.exit(main())
