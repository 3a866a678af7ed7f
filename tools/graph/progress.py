"""What is printed while a graph runs."""

import json
import sys

from precisecache_core.compare.entry import entry_line


def run_line(run):
    """One line about a sampler run; run: its report entry or its last event."""
    return f"{run['model']}: {run['calls']} calls, {run['computed']} computed, {run['reused']} reused"


class Progress:
    """Prints a server's events as lines: the running node, its steps, and what the cache does.

    On a terminal each step replaces the line before; elsewhere a line is printed at each tenth of them.
    """

    def __init__(self, graph, out=None):
        self.graph = graph
        self.out = out or sys.stdout
        self.is_live = self.out.isatty()
        self.cache = ""
        self.tenth = None
        self.told = set()  # ids of the runs whose line has been printed

    def take(self, text):
        """Print what one event says; text: the event as JSON."""
        event = json.loads(text)
        data = event.get("data") or {}
        if event["type"] == "executing" and data.get("node"):
            self.cache, self.tenth = "", None
            self._line(self._name(data["node"]))
        elif event["type"] == "precisecache.calls":
            self.cache = f", reused {data['reused']} of {data['calls']} calls"
            if data["is_ended"]:
                self._run(data)
        elif event["type"] == "progress" and data.get("max"):
            tenth = 10 * data["value"] // data["max"]
            if self.is_live or tenth != self.tenth:
                self.tenth = tenth
                line = f"{self._name(data.get('node'))}: {data['value']} of {data['max']}{self.cache}"
                self._line(line, is_passing=self.is_live and data["value"] < data["max"])

    def results(self, outputs):
        """Print what only the outputs say: runs whose last event did not arrive, warnings, comparisons."""
        reports = [report for output in outputs.values() for report in output.get("precisecache", ())]
        # by id, because two Cache Stats of one MODEL report the same runs
        for run in {run["run"]: run for report in reports for run in report["runs"]}.values():
            if run["run"] not in self.told:
                self._run(run)
            for warning in run["warnings"]:
                self._line(f"warning: {warning}")
        for output in outputs.values():
            for entry in output.get("precisecache_compare", ()):
                self._line(entry_line(entry))

    def _run(self, run):
        self.told.add(run["run"])
        self._line(run_line(run))

    def _name(self, node):
        return (
            self.graph.get(node, {}).get("_meta", {}).get("title")
            or self.graph.get(node, {}).get("class_type")
            or f"node {node}"
        )

    def _line(self, text, is_passing=False):
        if self.is_live:
            self.out.write("\r\x1b[K")
        self.out.write(text + ("" if is_passing else "\n"))
        self.out.flush()
