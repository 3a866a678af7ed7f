"""The one thing that outlives a run: finished reports, until Cache Stats reads them."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from .prompt import Prompt

LIMIT = 64  # reports of this many sampler runs are kept, the oldest leave first

_lock = threading.Lock()
_runs: OrderedDict[int, "Record"] = OrderedDict()  # number -> Record
_number = 0


@dataclass(frozen=True)
class Record:
    """A finished run and what it was run for; no tensors."""

    attachment: str
    prompt: str
    samplers: frozenset[str]  # fingerprints of the node that ran it and of the one that stands for it in the page
    list_index: int
    run: dict


def record(attachment_id: str, run: dict) -> None:
    """Keep a finished run's report entry under its attachment and the node being executed."""
    global _number
    prompt = Prompt.current()
    samplers = frozenset(map(prompt.fingerprint, [prompt.node_id, *prompt.in_page([prompt.node_id])]))
    entry = Record(attachment_id, prompt.id, samplers, prompt.list_index, run)
    with _lock:
        _number += 1
        _runs[_number] = entry
        while len(_runs) > LIMIT:
            _runs.popitem(last=False)


def runs_of(attachment_id: str) -> list[dict]:
    """Report entries of an attachment, oldest first: those of the prompt being executed.

    A sampler before the asking node that ComfyUI answered from its own cache counts with the
    runs that produced its result. For one item of a list: the runs of that item. Where the
    prompt is not known (other programs): the runs of the last prompt that used the attachment.
    """
    with _lock:
        mine = [(number, entry) for number, entry in _runs.items() if entry.attachment == attachment_id]
    prompt = Prompt.current()
    if not prompt.is_known:
        return [entry.run for _, entry in mine if entry.prompt == mine[-1][1].prompt]
    chosen = {number: entry for number, entry in mine if entry.prompt == prompt.id}
    ran = {name for entry in chosen.values() for name in entry.samplers}
    # not the asking node itself: a sampler that runs again must not learn from its own run before
    for sampler in map(prompt.fingerprint, prompt.upstream(prompt.node_id)[1:]):
        made = [(number, entry) for number, entry in mine if sampler in entry.samplers]
        if made and sampler not in ran:
            chosen |= {number: entry for number, entry in made if entry.prompt == made[-1][1].prompt}
    return [chosen[number].run for number in sorted(chosen) if _is_of_item(chosen[number], chosen, prompt.list_index)]


def _is_of_item(entry: Record, chosen: dict[int, Record], index: int) -> bool:
    """Whether a run belongs to an item of a list, as far as its sampler ran once for each item."""
    indices = {other.list_index for other in chosen.values() if other.samplers == entry.samplers}
    return entry.list_index == index or index not in indices or len(indices) == 1
