"""Where the LFD of a call comes from: a trial, or the calls computed before it."""

# ruff: noqa: F401, I001
# One line per source, in the order in which the node offers them under `trial`; the first is the default.
from .trials import Trials, PlainTrials
from .computed_calls import ComputedCalls

from .base import Reading, Source

SOURCES: dict[str, type[Source]] = {
    kind.name: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Source) and "name" in vars(kind)
}
