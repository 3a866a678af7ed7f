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


def texts(run):
    """What the panel must show of a run of the report."""
    blocks = run["blockcache"]
    return {
        "model": run["model"],
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
        "hasCurve": run["plan"] is None or any(v is not None for v in run["lfd"]),
        "hasThreshold": run["threshold"] is not None,
        "seconds": f"{run['seconds']['sampling']:.1f}",
    }


def shown(panel):
    return [{name: value for name, value in run.items() if name != "cache"} for run in panel]
