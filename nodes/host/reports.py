"""The one thing that outlives a run: finished reports, until Cache Stats reads them."""

import threading
from collections import OrderedDict

from comfy_execution.utils import get_executing_context

LIMIT = 64  # reports of this many sampler runs are kept, the oldest leave first

_lock = threading.Lock()
_runs = OrderedDict()  # (attachment id, prompt id, number) -> run entry; no tensors
_number = 0


def current_prompt_id():
    """The prompt being executed, or "" outside one (tests, other programs)."""
    context = get_executing_context()
    return context.prompt_id if context else ""


def record(attachment_id, run):
    """Keep a finished run's report entry under its attachment and the current prompt."""
    global _number
    with _lock:
        _number += 1
        _runs[attachment_id, current_prompt_id(), _number] = run
        while len(_runs) > LIMIT:
            _runs.popitem(last=False)


def runs_of(attachment_id):
    """Report entries of an attachment, oldest first: those of the last prompt that ran it.

    If ComfyUI answered the sampler from its own cache, that is the prompt which produced
    the result, not the one that asks.
    """
    with _lock:
        mine = [(key, run) for key, run in _runs.items() if key[0] == attachment_id]
    if not mine:
        return []
    prompt_id = mine[-1][0][1]
    return [run for key, run in mine if key[1] == prompt_id]
