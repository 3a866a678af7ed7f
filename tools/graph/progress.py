"""What is printed while a graph runs."""

import json
import sys

from precisecache_core.compare.entry import entry_line


def run_line(run):
    """One line about a sampler run; run: its report entry or its last event."""
    return f"{run['model']}: {run['calls']} calls, {run['computed']} computed, {run['reused']} reused"


def counts_text(run):
    return f", reused {run['reused']} of {run['calls']} calls"


class Progress:
    """Prints a server's events as lines: the running node, its steps, and what the cache does.

    On a terminal each step replaces the line before; elsewhere a line is printed at each tenth of them. The last
    line of a sampler waits for the last event of its run: events are sent at intervals, so that the counts of the
    one before are old by then.

    runs: {id: last event or report entry} of the sampler runs of this prompt.
    """

    def __init__(self, graph, out=None):
        self.graph = graph
        self.out = out or sys.stdout
        self.is_live = self.out.isatty()
        self.node = None  # the one that runs
        self.displayed_as = {}  # {id of a node that another one has added: id in the graph}
        self.kept = set()  # nodes whose results ComfyUI kept from an earlier prompt
        self.last_calls = {}  # {node: last event of the run whose bar is shown}
        self.steps = None  # (node, value, max) of a line that is not the last of its bar
        self.printed = ""  # the last line of steps that stays
        self.held = {}  # {run id: a sampler's last line, without the counts}
        self.runs = {}

    @property
    def is_waiting(self):
        """Whether a sampler's last line waits for an event."""
        return bool(self.held)

    def take(self, text):
        """Print what one event says; text: the event as JSON."""
        event = json.loads(text)
        data = event.get("data") or {}
        if event["type"] == "executing" and data.get("node"):
            self._end_bar()
            self.displayed_as[data["node"]] = data.get("display_node") or data["node"]
            self.node = self.displayed_as[data["node"]]
            self._line(self._name(self.node))
        elif event["type"] == "execution_cached":
            self.kept.update(data.get("nodes") or ())
        elif event["type"] == "precisecache.calls":
            self._calls(data)
        elif event["type"] == "progress" and data.get("max"):
            node = data.get("node")
            self._steps(self.displayed_as.get(node, node), data["value"], data["max"])

    def results(self, outputs):
        """Print what only the outputs say: runs whose last event did not arrive, warnings, comparisons."""
        # by id, because two Cache Stats of one MODEL report the same runs
        found = {
            run["run"]: (run, node)
            for node, output in outputs.items()
            for report in output.get("precisecache", ())
            for run in report["runs"]
        }
        for id, (run, node) in found.items():
            if node in self.kept and id not in self.runs:
                self._line(f"{run_line(run)} (in an earlier prompt: ComfyUI kept the result)")
                continue
            is_told = id in self.runs
            self.runs[id] = run
            if not is_told:
                self._run(run)
            for warning in run["warnings"]:
                self._line(f"warning: {warning}")
        for output in outputs.values():
            for entry in output.get("precisecache_compare", ()):
                self._line(entry_line(entry))

    def end(self):
        """Print the last lines that still wait; called when the prompt has ended in any way."""
        self._end_bar()
        for text in self.held.values():  # their last events did not arrive
            if not f"{self.printed},".startswith(f"{text},"):
                self._last_steps(text)
        self.held.clear()

    def _calls(self, data):
        node = data["sampler"] if data.get("sampler") in self.graph else self.node
        is_bar_over = data["run"] in self.held or not (self.steps and self.steps[0] == node)
        if not (data["is_ended"] and is_bar_over):
            self.last_calls[node] = data
        if data["is_ended"] and data["run"] not in self.runs:
            self.runs[data["run"]] = data
            self._run(data)

    def _run(self, run):
        """Print the last line of the steps of a run that has ended, then its own."""
        if run["run"] in self.held:
            self._last_steps(self.held.pop(run["run"]) + counts_text(run))
        self._line(run_line(run))

    def _steps(self, node, value, maximum):
        before, self.steps = self.steps, (node, value, maximum)
        if before and (before[0] != node or before[2] != maximum or value < before[1]):
            self.steps = before
            self._end_bar()
            before, self.steps = None, (node, value, maximum)
        if value >= maximum:
            self._end_bar()
        elif self.is_live or before is None or 10 * value // maximum != 10 * before[1] // maximum:
            calls = self.last_calls.get(node)
            text = self._steps_text(node, value, maximum) + (counts_text(calls) if calls else "")
            self._line(text, is_passing=self.is_live)
            self.printed = "" if self.is_live else text

    def _end_bar(self):
        """Print the last line of the current bar, or hold it until the counts of its run are final."""
        if self.steps is None:
            return
        text, calls = self._steps_text(*self.steps), self.last_calls.pop(self.steps[0], None)
        self.steps = None
        if calls is None or calls["is_ended"]:
            self._last_steps(text + (counts_text(calls) if calls else ""))
        else:
            self.held[calls["run"]] = text
            if self.is_live:
                self._line(text, is_passing=True)

    def _last_steps(self, text):
        if text != self.printed:
            self._line(text)
            self.printed = text

    def _steps_text(self, node, value, maximum):
        return f"{self._name(node)}: {value} of {maximum}"

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
