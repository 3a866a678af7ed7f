"""The cells of the table in docs/COMPATIBILITY.md, in the real host."""

import pytest

from compatibility.__main__ import PAGE
from compatibility.cell import CACHED, COMPUTED, SKIPPED, UNTRIED, Skip, check
from compatibility.cells import all_cells


def cells_for_the_suite():
    """All cells, but each sampler with only one of three schedulers, in turn; the command runs all of them."""
    samplers = [cell for cell in all_cells() if cell.area == "Samplers"]
    left_out = {cell.key for i, cell in enumerate(samplers) if i // 3 % 3 != i % 3}
    return [cell for cell in all_cells() if cell.key not in left_out]


@pytest.mark.parametrize("cell", cells_for_the_suite(), ids=lambda cell: cell.key)
def test_cell(bench, cell):
    try:
        check(cell, bench)
    except Skip as reason:
        pytest.skip(str(reason))


def test_the_page_says_what_the_cells_say():
    """docs/COMPATIBILITY.md has every cell, either with the verdict that its test demands or as not run."""
    lines = PAGE.read_text("utf-8").splitlines()
    rows = {}
    for line in lines:
        if line.startswith("## "):
            area = line[3:]
        elif line.startswith("| ") and not line.startswith("| graph"):
            name, *columns = (part.strip() for part in line.strip("|").split("|"))
            rows[f"{area}: {name}"] = columns
    cells = {cell.key: cell for cell in all_cells()}
    assert cells.keys() <= rows.keys()
    for key, cell in cells.items():
        verdicts = {v for v in rows[key] if v in (CACHED, UNTRIED, COMPUTED, cell.verdict)}
        assert verdicts == {cell.verdict} or SKIPPED in rows[key], key
