"""The one thing that outlives a run: finished reports, until Cache Stats reads them."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from .prompt import Prompt

LIMIT = 64  # reports of this many sampler runs are kept, the oldest leave first

_lock = threading.Lock()
_runs = OrderedDict()  # number -> Record
_number = 0


@dataclass(frozen=True)
class Record:
    """A finished run and what it was run for; no tensors."""

    attachment: str
    prompt: str
    sampler: str  # fingerprint of the node that ran it
    run: dict


def record(attachment_id, run):
    """Keep a finished run's report entry under its attachment and the node being executed."""
    global _number
    prompt = Prompt.current()
    entry = Record(attachment_id, prompt.id, prompt.fingerprint(prompt.node_id), run)
    with _lock:
        _number += 1
        _runs[_number] = entry
        while len(_runs) > LIMIT:
            _runs.popitem(last=False)


def runs_of(attachment_id):
    """Report entries of an attachment, oldest first: those of the prompt being executed.

    A sampler before the asking node that ComfyUI answered from its own cache counts with the
    runs that produced its result. Where neither is known (another node id, other programs):
    the runs of the last prompt that used the attachment.
    """
    with _lock:
        mine = [(number, entry) for number, entry in _runs.items() if entry.attachment == attachment_id]
    if not mine:
        return []
    prompt = Prompt.current()
    chosen = {number: entry for number, entry in mine if prompt.id and entry.prompt == prompt.id}
    ran = {entry.sampler for entry in chosen.values()}
    for name in prompt.upstream(prompt.node_id):
        sampler = prompt.fingerprint(name)
        if sampler not in ran:
            made = [(number, entry) for number, entry in mine if entry.sampler == sampler]
            chosen |= {number: entry for number, entry in made if entry.prompt == made[-1][1].prompt}
    if not chosen:
        chosen = {number: entry for number, entry in mine if entry.prompt == mine[-1][1].prompt}
    return [chosen[number].run for number in sorted(chosen)]
