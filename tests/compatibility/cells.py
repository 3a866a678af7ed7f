"""The cells of every area, in the order of the table."""

from compatibility import conditioning, execution, guidance, life, sampling

AREAS = (conditioning, guidance, sampling, execution, life)


def all_cells():
    """Every cell, in the order of the table."""
    return [cell for area in AREAS for cell in area.cells()]
