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
