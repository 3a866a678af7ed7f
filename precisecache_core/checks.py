"""Checks of settings: one wording for every error that a user can cause."""

import math
from typing import Any, TypeGuard


def require(is_valid: bool, setting: str, bound: str, value: Any, remedy: str) -> None:
    """Raise a ValueError that names setting, bound, value and remedy, unless `is_valid`."""
    if not is_valid:
        raise ValueError(f"PreciseCache: {setting} must be {bound}, got {value!r}. {remedy}")


def is_number(value: Any) -> TypeGuard[int | float]:
    """True for a finite int or float; False for a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any, minimum: int) -> TypeGuard[int]:
    """True for an int of at least `minimum`; False for a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum
