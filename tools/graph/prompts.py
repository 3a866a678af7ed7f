"""Prompt files, and where a prompt goes in a graph."""

import re

from . import overrides

TEXTS = ("text", "prompt")  # inputs of the text encoders
STRINGS = ("value", "string", "text")  # inputs of the nodes that hold a text


def read_prompts(path):
    """[(line number, prompt)] of a text file, one prompt a line; without empty lines and those that start with #.

    Raises OverrideError if the file cannot be read or has no prompt.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise overrides.OverrideError(f"cannot read {path}: {error}") from error
    prompts = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not prompts:
        raise overrides.OverrideError(f"{path.name} has no prompt; write one a line")
    return prompts


def folder_name(number, prompt):
    """The name of the folder for a prompt's results: its line and its first words, such as `003_a_red_fox`."""
    words = re.sub(r"\W+", "_", prompt.lower()).strip("_")[:40].rstrip("_")
    return f"{number:03}_{words}" if words else f"{number:03}"


def prompt_input(graph, text):
    """(node, input) that takes the prompt; text: NODE.INPUT, or None to find it. Raises OverrideError."""
    if text is not None:
        node, dot, name = text.rpartition(".")
        if not (node and dot and name):
            raise overrides.OverrideError(f"expected --prompt-input NODE.INPUT, got {text!r}")
        return node, name
    found = positive_inputs(graph)
    if len(found) != 1:
        which = " or ".join(f"{node}.{name}" for node, name in sorted(found)) or "none was found"
        raise overrides.OverrideError(
            f"cannot tell which input takes the prompt ({which}): name it with --prompt-input NODE.INPUT"
        )
    return found.pop()


def positive_inputs(graph):
    """{(node, input)} of every text from which the graph's positive conditioning comes."""
    for name in ("positive", "conditioning"):
        starts = {link[0] for node in graph.values() if (link := node["inputs"].get(name)) and is_link(link)}
        if starts:
            return {found for key in starts for found in texts_of(graph, key, set())}
    return set()


def texts_of(graph, key, seen):
    """{(node, input)} of the texts that a node's positive conditioning comes from, followed through links."""
    if key in seen or key not in graph:
        return set()
    seen.add(key)
    inputs = graph[key]["inputs"]
    found = {(key, name) for name in TEXTS if isinstance(inputs.get(name), str)}
    for name in TEXTS:
        if is_link(inputs.get(name)) and inputs[name][0] in graph:
            holder = graph[inputs[name][0]]["inputs"]
            found |= {(inputs[name][0], other) for other in STRINGS if isinstance(holder.get(other), str)}
    for name, value in inputs.items():
        if is_link(value) and (name == "positive" or name.startswith("conditioning")):
            found |= texts_of(graph, value[0], seen)
    return found


def is_link(value):
    """Whether an input is another node's output: [node id, output number]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
