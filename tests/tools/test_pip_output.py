"""How far pip is, from the lines that it prints. The samples are those of pip 23.2 and 25."""

import sys

import pytest

from tools.pip_output import PipProgress, progress_options, run_pip

OLD = """\
Looking in links: /wheels
Collecting torch
  Downloading torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl (530.6 MB)
     \u2501\u2501\u2501\u2501 530.6/530.6 MB 85.7 MB/s eta 0:00:00
Requirement already satisfied: numpy in ./.venv/lib/python3.11/site-packages (2.4.6)
Processing /files/typing_extensions-4.16.0-py3-none-any.whl (from torch)
Collecting typing-extensions>=4.10
"""
NEW = """\
Collecting torch
  Downloading torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (29 kB)
Collecting numpy
  Using cached numpy-2.4.6-cp311-cp311-manylinux.whl.metadata (9 kB)
Using cached numpy-2.4.6-cp311-cp311-manylinux.whl (16 MB)
Downloading torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl (530.6 MB)
Progress 0 of 800
Progress 400 of 800
"""


def read(text, expected):
    progress = PipProgress(expected)
    shares, totals = [], []
    for line in text.splitlines():
        totals.append(progress.take(line))
        shares.append(progress.share)
    return progress, shares, totals


def test_a_package_counts_half_when_it_was_looked_at_and_half_when_its_file_is_there():
    progress, shares, totals = read(OLD, 4)
    # torch looked at, torch's file, nothing, numpy as a whole, typing-extensions as a whole, nothing
    assert shares == [0, 1 / 8, 2 / 8, 2 / 8, 4 / 8, 6 / 8, 6 / 8] and set(totals) == {None}


def test_a_file_counts_when_it_comes_and_its_metadata_do_not():
    progress, shares, _ = read(NEW, 2)
    assert shares[:5] == [1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4] and progress.detail == "torch (530.6 MB)"


def test_the_bytes_of_a_download_are_part_of_its_file():
    progress = PipProgress(2)
    progress.take("Collecting torch")
    assert progress.share == 1 / 4
    progress.take("Progress 400 of 800")
    assert progress.share == 1.5 / 4
    progress.take("Collecting numpy")
    assert progress.share == 2 / 4


def test_unknown_lines_change_nothing_and_more_packages_than_expected_are_all():
    progress, shares, totals = read("?\n\nCollecting\nDownloading\nProgress x of y\nProgress 5 of 0\n", 0)
    assert set(shares) == {0} and set(totals) == {None}
    assert read(OLD, 1)[1][-1] == 1


def test_the_line_before_the_installation_says_of_how_many():
    assert PipProgress(1).take("Installing collected packages: mpmath, typing-extensions, torch") == 3


@pytest.mark.parametrize(
    "version, option",
    [("23.2.1", "off"), ("24.0", "off"), ("24.1", "raw"), ("25.0.1", "raw"), ("26.dev", "off"), ("", "off")],
)
def test_raw_progress_is_asked_for_where_pip_has_it(version, option):
    assert progress_options(version) == ["--progress-bar", option]


def run(code, tmp_path, installed=lambda: 0):
    return run_pip([sys.executable, "-c", code], tmp_path, tmp_path / "log.txt", 2, installed, "> ")


def test_collecting_and_installing_are_two_phases_and_the_log_has_no_progress(tmp_path, capsys):
    lines = "Collecting a|Progress 1 of 2|Installing collected packages: a, b|Successfully installed a b"
    assert run(f"print({lines!r}.replace('|', chr(10)))", tmp_path)[0] == 0
    said = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["> collecting packages ...", "> collecting packages"] + [
        "> installing 2 packages ...",
        "> installing 2 packages",
    ]
    assert (tmp_path / "log.txt").read_text("utf-8").splitlines()[1:] == [
        line for line in lines.split("|") if "Progress" not in line
    ]


def test_pip_is_not_asked_questions_that_nobody_sees(tmp_path):
    assert run("import os; print(os.environ['PIP_NO_INPUT'])", tmp_path) == (0, ["1"])


def test_a_failure_during_the_installation_is_its_status(tmp_path, capsys):
    code = "print('Installing collected packages: a'); print('disk full'); raise SystemExit(7)"
    assert run(code, tmp_path) == (7, ["Installing collected packages: a", "disk full"])
    assert "installing 1 packages: pip failed with exit status 7" in capsys.readouterr().out


def test_an_error_while_reading_ends_pip(tmp_path):
    def broken():
        raise RuntimeError

    survived = tmp_path / "survived"
    code = (
        "import time\nprint('Installing collected packages: a', flush=True)\n"
        + f"time.sleep(20)\nopen({str(survived)!r}, 'w')"
    )
    with pytest.raises(RuntimeError):  # after pip's end
        run(code, tmp_path, broken)
    assert not survived.exists()
