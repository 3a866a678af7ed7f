"""Runs pip with its output in a file, and reads from it how far pip is. Standard library only."""

import os
import re
import subprocess
from collections import deque

from tools.phases import Phase

TAIL = 40  # lines of pip's that are shown if it fails
RAW_PROGRESS = (24, 1)  # the first pip that prints `Progress N of M`


class PipProgress:
    """How far pip is with collecting packages, from the lines that it prints; unknown lines change nothing.

    expected: about how many packages it will collect.
    """

    def __init__(self, expected):
        self.expected = max(1, expected)
        self.seen = set()  # packages that it looked at
        self.got = set()  # packages whose file it has
        self.detail = ""
        self.file_share = 0.0  # of the file that is downloaded now

    @property
    def share(self):
        """From 0 to 1. A package counts half when pip has looked at it and half when pip has its file."""
        return min(1.0, (len(self.seen) + len(self.got) + self.file_share) / (2 * self.expected))

    def take(self, line):
        """Read one line. Returns how many packages are being installed if it says so, else None."""
        line = line.strip()
        if found := re.match(r"Progress (\d+) of (\d+)$", line):
            done, size = map(int, found.groups())
            self.file_share = min(1.0, done / size) if size else 0.0
        elif found := re.match(r"Collecting ([\w.-]+)", line):
            self._note(found[1], self.seen)
        elif found := re.match(r"Requirement already satisfied: ([\w.-]+)", line):
            self._note(found[1], self.seen, self.got)
        elif found := re.match(r"(?:Downloading|Using cached|Processing) (?:\S*[/\\])?([^\s/\\]+)(.*)", line):
            file, size = found.groups()
            name = file.split("-")[0]
            is_package = not file.endswith(".metadata")
            self._note(name, self.seen, *([self.got] if is_package else []))
            if is_package and re.fullmatch(r" \([\d.]+ \w+\)", size):
                self.detail += size
        elif found := re.match(r"Installing collected packages: (.+)", line):
            return len(found[1].split(","))
        return None

    def _note(self, name, *places):
        name = re.sub(r"[-_.]+", "-", name).lower()
        for place in places:
            place.add(name)
        self.detail, self.file_share = name, 0.0


def progress_options(version):
    """pip's option for progress that a program can read, or for none. version: pip's, as text."""
    found = re.match(r"(\d+)\.(\d+)", version)
    is_raw = found is not None and tuple(map(int, found.groups())) >= RAW_PROGRESS
    return ["--progress-bar", "raw" if is_raw else "off"]


def run_pip(command, folder, log, expected, count_installed, prefix=""):
    """Run pip with a line for each of its phases; returns its exit status and its last lines.

    log: the file to which all that it prints is added. expected: about how many packages it will collect.
    count_installed: returns how many packages are installed.
    """
    progress, last = PipProgress(expected), deque(maxlen=TAIL)
    # pip must not wait for an answer to a question that nobody sees
    environment = {**os.environ, "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as child,
    ):
        try:
            file.write("$ " + " ".join(command) + "\n")
            lines = _logged(child.stdout, file, last)
            with Phase("collecting packages", prefix) as phase:
                total = _collect(lines, progress, phase)
                if total is None:
                    return _end(child, phase), [*last]
            before = count_installed()
            with Phase(
                f"installing {total} packages", prefix, measure=lambda: (count_installed() - before) / total
            ) as phase:
                deque(lines, maxlen=0)  # pip says nothing more until the end
                return _end(child, phase), [*last]
        except BaseException:
            child.terminate()
            raise


def _logged(lines, file, last):
    """Yield the lines; all but the progress of a download go into the file and into `last`."""
    for line in lines:
        if not line.startswith("Progress "):
            file.write(line)
            file.flush()
            last.append(line.rstrip("\n"))
        yield line


def _collect(lines, progress, phase):
    """Read pip's lines until it installs what it collected; returns how many packages, None if it ends before."""
    for line in lines:
        total = progress.take(line)
        if total is not None:
            return total
        phase.advance(progress.share, progress.detail)
    return None


def _end(child, phase):
    """pip's exit status; a failure is the phase's result."""
    status = child.wait()
    if status:
        phase.result = f"pip failed with exit status {status}"
    return status
