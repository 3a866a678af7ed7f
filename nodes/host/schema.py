"""Helpers for the schema and the hidden inputs of the nodes."""

import inspect
from collections.abc import Callable
from typing import Any


def advanced(make_input: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """An input in the "advanced" section of the node; a plain input on older hosts.

    It is optional, so that graphs in API format may leave it out.
    make_input: the class of the input, called with the other arguments.
    """
    kwargs["optional"] = True
    if "advanced" in inspect.signature(make_input.__init__).parameters:
        kwargs["advanced"] = True
    return make_input(*args, **kwargs)


def noted(make_input: Callable[..., Any], *args: Any, notes: dict[str, Any], **kwargs: Any) -> Any:
    """An input with notes for the page, in the options of the input in the node's definition.

    make_input: the class of the input, called with the other arguments. Not all of these classes take the notes.
    """
    made = make_input(*args, **kwargs)
    made.extra_dict = {**(made.extra_dict or {}), **notes}
    return made


def node_id_of(node_class: Any) -> str | None:
    """The graph id of the node being executed; None if a program calls the node outside a graph.

    The node must declare `io.Hidden.unique_id`. It must also declare `not_idempotent`, otherwise a result
    from ComfyUI's cache may carry the id of an equal node.
    """
    return node_class.hidden.unique_id if getattr(node_class, "hidden", None) else None
