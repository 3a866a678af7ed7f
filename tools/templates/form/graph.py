"""A graph that a recipe builds: nodes, their inputs in ComfyUI's API format, and where they stand on the page."""

from dataclasses import dataclass, field

MODELS = "https://huggingface.co"


@dataclass(frozen=True)
class Output:
    """An output of a node: what another node's input is linked to."""

    key: str
    index: int


@dataclass
class Node:
    """A node of a graph. `column` names where it stands; a column is filled downwards."""

    key: str
    kind: str
    column: str
    inputs: dict
    title: str | None = None
    files: list = field(default_factory=list)  # what the page offers to download: {"name", "directory", "url"}
    is_collapsed: bool = False

    def __getitem__(self, index):
        return Output(self.key, index)


@dataclass
class Graph:
    """What a template shows and runs."""

    name: str
    picture: tuple  # heading and second line of its picture in the template browser
    about: list  # paragraphs of the note about the model
    usage: list  # paragraphs of the note about PreciseCache
    columns: list  # from left to right: the names that a column goes by; the first is its title
    nodes: list = field(default_factory=list)

    def add(self, kind, column, title=None, files=(), is_collapsed=False, **inputs):
        """Add a node below the others of its column. inputs: values and outputs of other nodes, by name.

        A name with "__" in it stands for a dot: format__codec is SaveVideo's format.codec.
        """
        inputs = {name.replace("__", "."): value for name, value in inputs.items()}
        node = Node(str(len(self.nodes) + 1), kind, column, inputs, title, list(files), is_collapsed)
        self.nodes.append(node)
        return node


def file(repository, directory, name):
    """A model file of a Comfy-Org repository, as the page's missing-models window reads it."""
    url = f"{MODELS}/{repository}/resolve/main/split_files/{directory}/{name}"
    return {"name": name, "directory": directory, "url": url}
