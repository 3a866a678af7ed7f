"""The host's own nodes, called as a graph calls them."""

import importlib

from compatibility.cell import Skip


def stock_all(module, name, **inputs):
    """The outputs of a node. Raises Skip where the host has no such node, or one without these inputs."""
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Skip(f"this host has no {name}") from error
    if hasattr(kind, "execute"):
        return tuple(kind.execute(**inputs).args)
    return getattr(kind(), kind.FUNCTION)(**inputs)


def stock(module, name, **inputs):
    """The first output of a node."""
    return stock_all(module, name, **inputs)[0]
