"""Every cell of the table in COMPATIBILITY.md, in the real host."""

import pytest

from benchmarks.compatibility.cell import Skip, check
from benchmarks.compatibility.cells import all_cells


@pytest.mark.parametrize("cell", all_cells(), ids=lambda cell: cell.key)
def test_cell(bench, cell):
    try:
        check(cell, bench)
    except Skip as reason:
        pytest.skip(str(reason))
