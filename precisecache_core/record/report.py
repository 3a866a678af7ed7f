"""The report: what the caches did, as plain JSON (`report.schema.json`)."""

import json
import math
from collections.abc import Iterable
from typing import Any

from .speedup import ratio_text, saved_text

VERSION = 2


def jsonable(value: Any) -> Any:
    """A copy of a value that JSON can hold: NaN and Inf become None, tuples become lists, keys become strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return value


def build_report(runs: Iterable[dict]) -> dict:
    """The report on these sampler runs (see `CachedRun.report`), oldest first."""
    return {"version": VERSION, "runs": [jsonable(run) for run in runs]}


def dump_report(report: dict) -> str:
    """The report as JSON text. Raises ValueError if it contains NaN or Inf (see `jsonable`)."""
    return json.dumps(report, allow_nan=False, indent=1)


def summary_line(run: dict) -> str:
    """One line for the log: `2.4x faster (estimate), saved 6 min 10 s: reused 18 of 30 steps`.

    Calls instead of steps if the numbers differ. A plan follows:
    `; plan: 12 of 30 steps, from a rehearsal, computed 13, 1 unplanned`.
    run: one entry of the report.
    """
    line = f"reused {run['reused']} of {run['steps']} steps"
    if run["calls"] != run["steps"]:
        line = f"reused {run['reused']} of {run['calls']} calls ({run['steps']} steps)"
    if run.get("speedup") is not None:
        line = f"{speedup_text(run['speedup'], run['saved_seconds'])}: {line}"
    blocks = run["blockcache"]
    if blocks:
        line += f", skipped {blocks['block_calls_skipped']} of {blocks['block_calls']} block calls"
    other = run.get("other_cache")
    if other and other["reused"] is not None:
        line += f", {other['name']} reused {other['reused']} of {other['calls']}"
    plan = run.get("plan")
    return f"{line}; {_plan_line(plan)}" if plan else line


def speedup_text(ratio: float, saved: float) -> str:
    """`2.4x faster (estimate), saved 6 min 10 s`; ratio and saved as in `Speedup`."""
    return f"{ratio_text(ratio, 'estimate')}, {'lost' if saved < 0 else 'saved'} {saved_text(abs(saved))}"


def _plan_line(plan: dict) -> str:
    """What was planned, and how many steps were computed."""
    line = f"plan: {plan['budget']} of {plan['steps']} steps"
    if plan["is_rehearsed"]:
        line += ", from a rehearsal"
    line += f", computed {plan['computed']}"
    return f"{line}, {plan['unplanned']} unplanned" if plan["unplanned"] else line
