"""What the cache does in every graph: `python3 run.py bench compatibility`.

Runs every cell on the ComfyUI that is found, keeps the verdicts in results/VERSION.json, and writes
docs/COMPATIBILITY.md from the verdicts of all versions in that folder. `--only` takes parts of cells'
names; `--table` only writes the page.
"""

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path

from testkit.tiny_host import ROOT, find_host, open_bench
from tools.comfyui.locate import comfyui_version
from tools.machine import describe_machine, head

PAGE = ROOT / "docs" / "COMPATIBILITY.md"
RESULTS = Path(__file__).resolve().parent / "results"
TEXT = """# What works with what

Each graph below is sampled five times in a real ComfyUI on small models: without the pack; with both nodes and
nothing reused (the latent must be the same to the bit); twice with LFCache (the latents must be equal); and with
LFCache and BlockCache (the latent must be finite). Afterwards nothing of ours may be left: no object, and no option or
patch on the tiny model. The graphs under *Life* check one thing each instead.

The column *change* is how far LFCache's latent is from the uncached one, RMS over RMS, at alpha 0.2 unless the graph
names another. It means nothing on models with random weights and is left out there. The column *BlockCache* says
whether blocks were skipped in a run with LFCache; it is empty where that depends on which calls LFCache computes.

This page is written by `python3 run.py bench compatibility`;
[the tests](../tests/compatibility/test_cells.py) run the same graphs.
"""


def run(cells, bench):
    """{key of a cell: its result}, as plain data. A cell that fails ends the program."""
    from compatibility.cell import SKIPPED, Skip, check

    results = {}
    for cell in cells:
        try:
            outcome = check(cell, bench)
        except Skip as reason:
            results[cell.key] = {"verdict": SKIPPED, "says": str(reason)}
            continue
        results[cell.key] = {"verdict": cell.verdict, "says": cell.says}
        if outcome is not None:
            results[cell.key] |= asdict(outcome)
            results[cell.key] |= {
                "says": "; ".join(outcome.warnings),
                "is_trained": cell.bound is not None,
                "is_skipping": outcome.skipped_blocks > 0 if cell.blocks is not None else None,
            }
    return results


def page(kept):
    """The page's lines from {version: {"head": lines, "cells": results}}, newest version last."""
    lines = [TEXT]
    versions = list(kept)
    for version in versions:
        lines += [f"- ComfyUI {version}: {'; '.join(kept[version]['head'][1:])}"]
    keys = list(dict.fromkeys(key for version in reversed(versions) for key in kept[version]["cells"]))
    for area in dict.fromkeys(key.split(": ")[0] for key in keys):
        columns = [f"ComfyUI {version}" for version in versions]
        lines += [
            "",
            f"## {area}",
            "",
            f"| graph | {' | '.join(columns)} | change | BlockCache | what the log says |",
            "|" + "---|" * (len(columns) + 4),
        ]
        for key in (k for k in keys if k.split(": ")[0] == area):
            results = [kept[version]["cells"].get(key, {"verdict": "no such graph"}) for version in versions]
            lines.append(row(key.split(": ", 1)[1], results))
    return lines


def row(name, results):
    last = next((r for r in reversed(results) if "error" in r), {})
    change = f"{last['error']:.2f}" if last.get("is_trained") else ""
    blocks = {True: "yes", False: "no", None: ""}[last.get("is_skipping")]
    says = next((r["says"] for r in reversed(results) if r.get("says")), "")
    return f"| {name} | {' | '.join(r['verdict'] for r in results)} | {change} | {blocks} | {says} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of cells' names")
    parser.add_argument("--table", action="store_true", help="run nothing, only write the page")
    args = parser.parse_args()
    if not args.table:
        version = comfyui_version(find_host())
        path = RESULTS / f"{version}.json"
        bench = open_bench(is_fused=False)
        from compatibility.cells import all_cells

        known = json.loads(path.read_text())["cells"] if path.exists() else {}
        cells = [cell for cell in all_cells() if any(part in cell.key for part in args.only)]
        results = known | run(cells, bench)
        keys = [cell.key for cell in all_cells()]
        kept = {
            "head": head("compatibility", describe_machine()),
            "cells": {key: results[key] for key in keys if key in results},
        }
        path.write_text(json.dumps(kept, indent=1) + "\n")
    files = sorted(RESULTS.glob("*.json"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.stem)])
    PAGE.write_text("\n".join(page({p.stem: json.loads(p.read_text()) for p in files})) + "\n")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
