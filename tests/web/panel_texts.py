"""The graph that the page's tests run, and what the panel must show of its run."""

from tools.graph.shipped import load_flash, only_node, set_inputs


def graph_of(steps=40, seed=0, **lfcache):
    graph = load_flash()
    set_inputs(graph, "EmptyHunyuanLatentVideo", width=64, height=64, length=5)
    set_inputs(graph, "KSampler", steps=steps, seed=seed)
    set_inputs(graph, "PreciseCacheLFCache", **lfcache)
    return graph


STATS = only_node(load_flash(), "PreciseCacheStats")
LFCACHE = only_node(load_flash(), "PreciseCacheLFCache")
BLOCKCACHE = only_node(load_flash(), "PreciseCacheBlockCache")


def plan_text(plan):
    """The panel's line on the plan of a run in the report."""
    if plan is None:
        return None
    line = f"plan: {plan['budget']} of {plan['steps']} steps" + ", from a rehearsal" * plan["is_rehearsed"]
    unplanned = f", {plan['unplanned']} unplanned" if plan["unplanned"] else ""
    return f"{line} · computed {plan['computed']}{unplanned}"


def time_text(seconds):
    """Seconds as the panel says them, below an hour."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = int(seconds + 0.5)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def speedup_text(run):
    """The panel's line on the speed-up of a run in the report."""
    ratio, saved = run["speedup"], run["saved_seconds"]
    if ratio is None:
        return None
    if saved < 0:
        return f"{ratio:.2f}× as fast, lost {time_text(-saved)} (estimate)"
    return f"{ratio:.2g}× faster, saved {time_text(saved)} (estimate)"


def badge(run):
    """The badge that an LFCache node must have after a run of the report."""
    return f"{int(100 * run['reused'] / run['calls'] + 0.5)} % reused"


def block_badge(run):
    """The badge that a BlockCache node must have after a run of the report."""
    blocks = run["blockcache"]
    return f"{int(100 * blocks['block_calls_skipped'] / blocks['block_calls'] + 0.5)} % skipped"


def texts(run, is_among_others=False):
    """What the panel must show of a run of the report. is_among_others: another sampler of this title is shown too."""
    blocks = run["blockcache"]
    return {
        "model": f"KSampler #{run['sampler']}" if is_among_others else "KSampler",
        "state": "ended",
        "computed": str(run["computed"]),
        "reused": str(run["reused"]),
        "trials": str(run["trials"]),
        "decisions": run["decisions"],
        "warnings": run["warnings"],
        "blocks": f"{blocks['block_calls_skipped']} / {blocks['block_calls']}" if blocks else None,
        "agreement": None if run["trial_agreement"] is None else f"{run['trial_agreement']:.2f}",
        "lfds": sum(v is not None for v in run["lfd"]),
        "plan": plan_text(run["plan"]),
        "speedup": speedup_text(run),
        "hasCurve": run["plan"] is None or any(v is not None for v in run["lfd"]),
        "hasThreshold": run["threshold"] is not None,
        "seconds": time_text(run["seconds"]["sampling"]),
    }


def shown(panel):
    return [{name: value for name, value in run.items() if name != "cache"} for run in panel]
