"""The Python example runs as printed, and the figures of the README and of the comparisons are the benchmarks'."""

import re
import runpy
from pathlib import Path

import pytest

from precisecache_core import LFCacheConfig

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
COMPARISON = (ROOT / "docs" / "COMPARISON.md").read_text("utf-8")


def test_the_example_runs(tmp_path, capsys):
    page = (ROOT / "docs" / "PYTORCH.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "example.py").write_text(example, "utf-8")
    runpy.run_path(str(tmp_path / "example.py"))
    estimate = r"[\d.]+x (?:as fast|faster) \(estimate\), (?:saved|lost) [^:]+: "
    assert re.fullmatch(
        estimate + r"reused \d+ of 20 steps; plan: 10 of 20 steps, from a rehearsal, computed 10\n",
        capsys.readouterr().out,
    )


RESULTS = ROOT / "benchmarks" / "results"


def measured():
    """The README's section of figures."""
    return re.search(r"\n## How it compares\n(.*?)\n## ", README, re.DOTALL)[1]


def table():
    """The lines of the README's table of all schedules."""
    return re.findall(
        r"^\| (?:\[(?:bundled|second), [^]]*\]\(\S+x32\.txt\)|model, sampler) \|.*", measured(), re.MULTILINE
    )


def test_the_table_of_all_schedules_is_what_the_benchmark_printed():
    lines = table()
    printed = (RESULTS / "summary.txt").read_text("utf-8")
    assert len(lines) == 13 and lines == re.findall(r"^\| .*", printed, re.MULTILINE)
    assert "\n8 clips\n" in printed


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= 160


def test_the_first_sentence_says_what_base_computes_of_thirty_steps_and_what_that_costs():
    first = " ".join(README.split("\n\n")[1].split())
    said = r"runs the model for (\d+) of 30 sampling steps .*: ([\d.]+) times less work"
    computed, less = re.search(said, first).groups()
    assert int(computed) == LFCacheConfig.from_preset("base").budget(30)
    # the columns: schedule, EasyCache, turbo, base
    costs = [float(row.split("|")[4].split("%")[0]) for row in table() if "30 steps" in row]
    assert len(costs) == 6 and f"{100 / max(costs):.1f}" == less
    least = min(float(row.split("|")[4].split("%, ")[1].split()[0]) for row in table() if "steps" in row)
    assert int(re.search(r"keep (\d+) dB PSNR or more on average", first)[1]) == int(least)


def test_the_table_of_presets_says_what_they_compute():
    for preset, *counts in re.findall(r"^\| \*\*(base|turbo)\*\* \| (\d+), (\d+), (\d+) \|", README, re.MULTILINE):
        assert [*map(int, counts)] == [LFCacheConfig.from_preset(preset).budget(steps) for steps in (20, 30, 50)]
    assert len(re.findall(r"^\| \*\*(?:base|turbo)\*\* \| \d", README, re.MULTILINE)) == 2


NUMBERS = r"([\d.]+)"
RANGE = rf"{NUMBERS} to {NUMBERS}"
# PSNR comes after the number of computed calls, the cost and the trials' share of it
OF_32_CLIPS = "".join(
    rf"(?:.*\n)*?{row} +\S+ +\S+% +\S+% +{NUMBERS} .* 32 .*"
    for row in ("lfcache plan base", "lfcache plan turbo", "easycache 0.2")
)


@pytest.mark.parametrize(
    "said, files, printed",
    [
        (
            rf"On {NUMBERS} of the 12 turbo is better than EasyCache's default, by {RANGE} dB at {RANGE} % of its "
            rf"cost; on the others it is worse, by {RANGE} dB at {RANGE} %\.",
            ["summary.txt"],
            rf"turbo: better than EasyCache on {NUMBERS}, by {RANGE} dB at {RANGE} % of its cost; "
            rf"worse than EasyCache on \d+, by {RANGE} dB at {RANGE} % of its cost",
        ),
        (
            rf"base is better on all, by {RANGE} dB at {RANGE} %\.",
            ["summary.txt"],
            rf"base: better than EasyCache on 12, by {RANGE} dB at {RANGE} % of its cost\n",
        ),
        (
            rf"base {NUMBERS} dB, turbo {NUMBERS} and EasyCache {NUMBERS} with euler ",
            ["frontier_euler30_shift5_4x32_32clips.txt"],
            OF_32_CLIPS,
        ),
        (
            rf"\), {NUMBERS}, {NUMBERS} and {NUMBERS} with uni_pc ",
            ["frontier_uni_pc30_shift2_4x32_32clips.txt"],
            OF_32_CLIPS,
        ),
        (
            rf"Nearest comes (\w.*?), {NUMBERS} dB below it at {NUMBERS} % \((.*?)\)",
            ["summary.txt"],
            rf"nearest peer: (.*?), {NUMBERS} dB below LFCache at {NUMBERS} % \((.*?)\)",
        ),
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
    text = " ".join(COMPARISON.split())
    assert re.search(said, text).groups() == sum(
        (re.search(printed, (RESULTS / name).read_text("utf-8")).groups() for name in files), ()
    )


def test_the_table_of_diffusers_own_caches_is_what_the_benchmark_printed():
    section = COMPARISON.split("\n## Beside diffusers' own caches\n")[1].split("\n## ")[0]
    header, _, *rows = (line.strip("| ").split(" | ") for line in re.findall(r"^\|.*", section, re.MULTILINE))
    printed = [
        (RESULTS.parents[1] / "docs" / name).read_text("utf-8") for name in re.findall(r"\((\S+\.txt)\)", section)
    ]
    assert len(header) == len(printed) + 1 == 4 and len(rows) > 6
    for name, *cells in rows:
        for cell, text in zip(cells, printed, strict=True):
            cost, psnr = re.search(rf"^{re.escape(name)} +([\d.]+)% +([\d.]+) ", text, re.MULTILINE).groups()
            assert cell == f"{cost} %, {psnr} dB", name
    said = re.search(rf"by {NUMBERS}, {NUMBERS} and {NUMBERS} dB or more", " ".join(section.split())).groups()
    for lead, text in zip(said, printed, strict=True):
        leads = [float(found) for found in re.findall(r"([+-][\d.]+) dB", text.split("each other setting", 1)[1])]
        assert len(leads) > 20 and min(leads) == float(lead)


def test_the_tables_of_several_gpus_are_what_the_benchmark_printed():
    page = (ROOT / "docs" / "MULTI_GPU.md").read_text("utf-8")
    printed = (RESULTS / "multi_gpu.txt").read_text("utf-8")
    for size, name in (("1280x720", "720p"), ("1920x1088", "1080p")):
        # the columns of `merged`: of the cache, with weights, with weights under FSDP
        section = re.search(rf"COMPUTED GB on each GPU: wan14b {size}(.*?)\n\n", printed, re.DOTALL)[1]
        rows = re.findall(r"\n +5 ranges +\d+ +(\S+) +\S+ +(\S+) +\S+ +(\S+)", section)
        for column, said in zip(
            zip(*rows), ("what BlockCache keeps", "with the weights", "with the weights under FSDP")
        ):
            assert f"\n| {name}: {said} | {' | '.join(column)} |\n" in page
        (latents,) = re.findall(r"LFCache's predictions, (\S+) on every rank", section)
        assert f"{latents} GB at {name}" in page
    paper = re.search(r"the paper's Table 2, wan14b(.*?)\n\n", printed, re.DOTALL)[1]
    rows = re.findall(r"\n +(\d) +(\d+) +(\d+) +(\S+) +\S+ +(\S+) +(\S+) ", paper)
    assert len(rows) == 4
    for gpus, none, turbo, ratio, theirs, ours in rows:
        assert f"\n| {gpus} | {none}, {turbo} | {ratio} | {theirs} | {ours} |\n" in page
    assert f"{rows[0][-1]}\ntimes fewer on one GPU and {rows[-1][-1]} times fewer on eight" in page
