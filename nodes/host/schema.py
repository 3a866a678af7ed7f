"""What a node declares and is told, where that needs more than a line."""

import inspect
from collections.abc import Callable
from typing import Any


def advanced(make_input: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """An input folded away under "advanced" where the host can; a plain one on older hosts.

    Optional, so that graphs in API format may leave it out, those of later versions too.
    """
    kwargs["optional"] = True
    if "advanced" in inspect.signature(make_input.__init__).parameters:
        kwargs["advanced"] = True
    return make_input(*args, **kwargs)


def node_id_of(node_class: Any) -> str | None:
    """The id in the graph of the node being executed; None where it is called by other programs.

    The node must declare `io.Hidden.unique_id`, and `not_idempotent` so that an answer from
    ComfyUI's cache has the right id too.
    """
    return node_class.hidden.unique_id if getattr(node_class, "hidden", None) else None
