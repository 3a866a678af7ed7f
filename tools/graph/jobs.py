"""What the files of a watched folder are: graphs, or prompts for one graph."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import overrides
from .execution import read_graph
from .folder import Folder
from .prompts import folder_name, prompt_input, read_prompts


@dataclass(frozen=True)
class Job:
    """One run of a graph. name: in the table. title: printed before it. make: returns the graph, or raises."""

    name: str
    title: str
    folder: Path
    make: Callable[[], dict]
    done: Callable[[], None] = lambda: None


class GraphFiles:
    """Every file is a graph."""

    kind = "graphs (*.json)"

    def __init__(self, options):
        self.options = options
        self.folder = Folder(options.watch, ".json")

    def jobs(self, path):
        out = self.options.out / path.stem
        return [Job(path.name, path.name, out, lambda: read_graph(path, self.options))]


class PromptFiles:
    """Every line of every file is a prompt for one graph. A prompt that is done does not run again.

    Raises OverrideError if the graph cannot be read or does not have the input for the prompt.
    """

    kind = "prompts (*.txt)"

    def __init__(self, options):
        self.options = options
        self.folder = Folder(options.watch, ".txt")
        self.graph = read_graph(options.graph, options)
        self.node, self.input = prompt_input(self.graph, options.prompt_input)
        self.done = set()  # {(path, prompt)}
        self._with("")

    def jobs(self, path):
        """The prompts of a file that are not done. Raises OverrideError if it has none at all."""
        return [
            Job(
                f"{path.name}:{number}",
                f"{path.name}:{number}: {prompt}",
                self.options.out / path.stem / folder_name(number, prompt),
                lambda prompt=prompt: self._with(prompt),
                lambda prompt=prompt: self.done.add((path, prompt)),
            )
            for number, prompt in read_prompts(path)
            if (path, prompt) not in self.done
        ]

    def _with(self, prompt):
        graph = copy.deepcopy(self.graph)
        overrides.apply(graph, self.node, self.input, prompt)
        return graph
