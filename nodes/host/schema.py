"""Differences between the supported hosts in how a node declares its inputs."""

import inspect


def advanced(make_input, *args, **kwargs):
    """An input folded away under "advanced" where the host can; a plain one on older hosts.

    Optional, so that graphs in API format may leave it out, those of later versions too.
    """
    kwargs["optional"] = True
    if "advanced" in inspect.signature(make_input.__init__).parameters:
        kwargs["advanced"] = True
    return make_input(*args, **kwargs)
