"""The run report: what the cache did, as plain JSON."""

import json
import math

VERSION = 2


def jsonable(value):
    """NaN and Inf become null, all the way down; containers become lists and dicts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    return value


def build_report(runs):
    """The report object over sampler runs, oldest first."""
    return {"version": VERSION, "runs": [jsonable(run) for run in runs]}


def dump_report(report):
    """The report as JSON text; never contains NaN or Infinity."""
    return json.dumps(report, allow_nan=False, indent=1)


def summary_line(run):
    """One line for the log: `reused 11 of 30 steps`, or of calls where a step makes several."""
    line = f"reused {run['reused']} of {run['steps']} steps"
    if run["calls"] != run["steps"]:
        line = f"reused {run['reused']} of {run['calls']} calls ({run['steps']} steps)"
    blocks = run["blockcache"]
    if blocks:
        line += f", skipped {blocks['block_calls_skipped']} of {blocks['block_calls']} blocks in the computed ones"
    return line
