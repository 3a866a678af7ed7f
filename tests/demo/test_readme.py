"""The README's Python runs as printed, and its tables name what the code has."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_example_runs(tmp_path, capsys):
    example, = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "example.py").write_text(example, "utf-8")
    runpy.run_path(str(tmp_path / "example.py"))
    assert re.fullmatch(r"reused \d+ of 20 steps\n", capsys.readouterr().out)


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert links and all((ROOT / link.split("#")[0]).exists() for link in links)


RESULTS = ROOT / "benchmarks" / "results"
SCHEDULES = ("frontier_euler50_shift2_4x32.txt", "frontier_euler30_shift5_4x32.txt")  # the table's columns
ROWS = {  # the table's names: the benchmark's
    "LFCache base": "lfcache fitted 0.5", "LFCache turbo": "lfcache fitted 0.7",
    "LFCache alpha 0.2": "lfcache fitted 0.2", "paper, alpha 2": "paper 2", "paper, alpha 4": "paper 4",
    "EasyCache 0.1": "easycache 0.1", "EasyCache 0.2 (its default)": "easycache 0.2",
    "EasyCache 1.2": "easycache 1.2",
    "flash (turbo and BlockCache)": "flash paper 0.7", "Uniform, every 4th": "uniform fitted 0.25",
    "Uniform, every 5th": "uniform fitted 0.20",
}


def measured():
    """The README's section of figures."""
    return re.search(r"\n## How it compares\n(.*?)\n## ", README, re.DOTALL)[1]


def test_the_table_is_what_the_benchmark_printed():
    rows = {cells[0]: cells[1:] for cells in (
        [cell.strip() for cell in line.strip("|").split("|")] for line in measured().splitlines()
        if line.startswith("| ") and "dB" in line)}
    assert rows.keys() == ROWS.keys()
    for number, name in enumerate(SCHEDULES):
        printed = (RESULTS / name).read_text("utf-8")
        for label, cells in rows.items():
            cost, psnr, clips = re.search(rf"^{re.escape(ROWS[label])} +\S+ +(\S+)% +\S+ +(\S+) +\S+ +\S+ +(\d+) ",
                                          printed, re.MULTILINE).groups()
            assert cells[2 * number:2 * number + 2] == [f"{cost} %", f"{psnr} dB"] and clips == "8", (label, name)


def test_every_other_figure_was_printed_by_a_benchmark():
    printed = {number for path in RESULTS.glob("*.txt")
               for number in re.findall(r"\d+\.\d+", path.read_text("utf-8"))}
    text = "\n".join(line for line in measured().splitlines() if not line.startswith("|"))
    figures = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", re.sub(r"\]\([^)]*\)", "]", text))
    assert len(figures) > 30 and set(figures) - printed - {"0.33"} == set()  # ComfyUI's version
