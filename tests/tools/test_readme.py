"""The README's Python example runs as printed, its links lead to files, and its figures are the benchmarks'."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_example_runs(tmp_path, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "example.py").write_text(example, "utf-8")
    runpy.run_path(str(tmp_path / "example.py"))
    assert re.fullmatch(
        r"reused \d+ of 20 steps; plan: 10 of 20 steps, from a rehearsal, computed 10\n", capsys.readouterr().out
    )


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert links and all((ROOT / link.split("#")[0]).exists() for link in links)


RESULTS = ROOT / "benchmarks" / "results"
SCHEDULES = ("frontier_euler50_shift2_4x32.txt", "frontier_euler30_shift5_4x32.txt")  # the table's columns
ROWS = {  # {name in the README: name in the benchmark}
    "LFCache base": "lfcache fitted 0.5",
    "LFCache turbo": "lfcache fitted 0.7",
    "LFCache alpha 0.2": "lfcache fitted 0.2",
    "paper, alpha 0.5": "paper 0.5",
    "paper, alpha 2": "paper 2",
    "paper, alpha 4": "paper 4",
    "EasyCache 0.1": "easycache 0.1",
    "EasyCache 0.2 (its default)": "easycache 0.2",
    "EasyCache 1.2": "easycache 1.2",
    "flash (turbo and BlockCache)": "flash paper 0.7",
    "Uniform, every 4th": "uniform fitted 0.25",
    "Uniform, every 5th": "uniform fitted 0.20",
}


def measured():
    """The README's section of figures."""
    return re.search(r"\n## How it compares\n(.*?)\n## ", README, re.DOTALL)[1]


def test_the_table_is_what_the_benchmark_printed():
    rows = {
        cells[0]: cells[1:]
        for cells in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in measured().splitlines()
            if line.startswith("| ") and "dB" in line and "clips.txt" not in line
        )
    }
    assert rows.keys() == ROWS.keys()
    for number, name in enumerate(SCHEDULES):
        printed = (RESULTS / name).read_text("utf-8")
        for label, cells in rows.items():
            cost, psnr, clips = re.search(
                rf"^{re.escape(ROWS[label])} +\S+ +(\S+)% +\S+ +(\S+) +\S+ +\S+ +(\d+) ", printed, re.MULTILINE
            ).groups()
            assert cells[2 * number : 2 * number + 2] == [f"{cost} %", f"{psnr} dB"] and clips == "8", (label, name)


FRONTIERS = [
    f"frontier_{name}_4x32.txt" for name in ("euler50_shift2", "euler30_shift5", "uni_pc30_shift2", "uni_pc50_shift5")
]
CLOCKS = [name.replace("frontier", "wall_clock") for name in FRONTIERS[:3]]
NUMBERS = r"([\d.]+)"
SEVERAL = rf"{NUMBERS}, {NUMBERS}, {NUMBERS} and {NUMBERS}"


@pytest.mark.parametrize(
    "said, files, printed",
    [
        (rf"LFCache takes {SEVERAL} % of its FLOPs", FRONTIERS, rf"FLOPs, {NUMBERS}% of EasyCache's"),
        (rf"at its FLOPs it is {SEVERAL} dB better", FRONTIERS, rf"LFCache at its FLOPs: \S+ dB, \+{NUMBERS}"),
        (
            rf"its own reuse it is {SEVERAL} dB better on average",
            FRONTIERS,
            rf"LFCache over uniform .* mean \+{NUMBERS}",
        ),
        (rf"on average and {SEVERAL} at least", FRONTIERS, rf"LFCache over uniform .* least \+{NUMBERS}"),
        (rf"base takes {NUMBERS}, {NUMBERS} and {NUMBERS} %", CLOCKS, rf"\nlfcache fitted 0.5 +\S+ +{NUMBERS}%"),
        (rf"EasyCache {NUMBERS}, {NUMBERS} and {NUMBERS} % \(", CLOCKS, rf"\neasycache 0.2 +\S+ +{NUMBERS}%"),
        (rf"TaylorSeer \({NUMBERS} dB less", FRONTIERS[3:], rf"\ntaylorseer O1 first 6 N3 .*-{NUMBERS}\n"),
        (rf"less at {NUMBERS} % on uni_pc 50", FRONTIERS[3:], rf"\ntaylorseer O1 first 6 N3 +\S+ +{NUMBERS}%"),
        (rf"PAB \({NUMBERS} at", FRONTIERS[2:3], rf"\npab windowed 6,6,6 .*-{NUMBERS}\n"),
        (rf"at {NUMBERS} % on uni_pc 30\)", FRONTIERS[2:3], rf"\npab windowed 6,6,6 +\S+ +{NUMBERS}%"),
        (rf"MagCache \({NUMBERS} at", FRONTIERS[:1], rf"\nmagcache K8 1.6 .*-{NUMBERS}\n"),
        (rf"at {NUMBERS} % on euler 50\)", FRONTIERS[:1], rf"\nmagcache K8 1.6 +\S+ +{NUMBERS}%"),
        (
            rf"{NUMBERS} on average and {NUMBERS} at worst, the paper's plain trials {NUMBERS} and {NUMBERS} ",
            ["trial_agreement_4x32.txt"],
            rf"\n2, 4, 4 +{NUMBERS} \({NUMBERS}\) .* {NUMBERS} \({NUMBERS}\)\n",
        ),
        (rf"one trial costs {NUMBERS} % of a call", ["macs.txt"], rf"\nwan14b 720p +{NUMBERS}% \(10x22x40\)"),
        # PCIe 3 at 100 TFLOP/s, the slowest bus and the fastest GPU
        (rf"up to {NUMBERS} % there", ["trial_share.txt"], rf"14B 1280x720 +81 +fp16(?: +\S+){{6}} +{NUMBERS}%"),
        (rf"and {NUMBERS} % at 480p", ["trial_share.txt"], rf"14B +832x480 +81 +fp16(?: +\S+){{6}} +{NUMBERS}%\*"),
    ],
)
def test_the_sentences_figures_are_what_the_benchmarks_printed(said, files, printed):
    text = " ".join(measured().split())
    assert re.search(said, text).groups() == sum(
        (re.search(printed, (RESULTS / name).read_text("utf-8")).groups() for name in files), ()
    )


def test_the_table_of_32_clips_is_what_the_benchmark_printed():
    rows = re.findall(r"\n\| \[[^]]*\]\(benchmarks/results/([^)]+32clips.txt)\) \| (.*) \|", measured())
    assert len(rows) == 3
    for name, cells in rows:
        printed = (RESULTS / name).read_text("utf-8")
        found = [
            re.search(rf"\n{row} +\S+ +(\S+)% +\S+ +(\S+) +\S+ +\S+ +32 ", printed).groups()
            for row in ("lfcache fitted 0.5", "easycache 0.2")
        ]
        assert cells.split(" | ") == [text for cost, psnr in found for text in (f"{cost} %", f"{psnr} dB")]
