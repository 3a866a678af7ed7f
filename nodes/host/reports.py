"""Reports of finished runs, kept until Cache Stats reads them. Nothing else outlives a run."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from .prompt import Prompt

LIMIT = 64  # number of runs whose reports are kept; the oldest is dropped first

_lock = threading.Lock()
_runs: OrderedDict[int, "Record"] = OrderedDict()  # number -> Record
_number = 0


@dataclass(frozen=True)
class Record:
    """The report entry of a finished run, and which prompt and node it belongs to; no tensors."""

    attachment: str  # id of the Attachment
    prompt: str  # id of the prompt
    samplers: frozenset[str]  # fingerprints of the sampler node and of the node that the page shows for it
    list_index: int
    run: dict


def record(attachment_id: str, run: dict, prompt: Prompt | None = None) -> None:
    """Keep the report entry of a finished run, for its attachment and the node being executed.

    prompt: that in which the run took place; by default the present one.
    """
    global _number
    prompt = prompt or Prompt.current()
    samplers = frozenset(map(prompt.fingerprint, [prompt.node_id, *prompt.in_page([prompt.node_id])]))
    entry = Record(attachment_id, prompt.id, samplers, prompt.list_index, run)
    with _lock:
        _number += 1
        _runs[_number] = entry
        while len(_runs) > LIMIT:
            _runs.popitem(last=False)


def take_runs(attachment_id: str) -> list[dict]:
    """The report entries of an attachment, oldest first, which are not kept any longer."""
    with _lock:
        mine = [number for number, entry in _runs.items() if entry.attachment == attachment_id]
        return [_runs.pop(number).run for number in mine]


def runs_of(attachment_id: str) -> list[dict]:
    """The report entries of an attachment in the prompt being executed, oldest first.

    If ComfyUI took the result of an upstream sampler from its own cache, the runs that produced
    that result are included. If the node is executed for an item of a list, only the runs of that
    item are. If the prompt is not known (outside a server), it is the last prompt that used the
    attachment.
    """
    with _lock:
        mine = [(number, entry) for number, entry in _runs.items() if entry.attachment == attachment_id]
    prompt = Prompt.current()
    if not prompt.is_known:
        return [entry.run for _, entry in mine if entry.prompt == mine[-1][1].prompt]
    chosen = {number: entry for number, entry in mine if entry.prompt == prompt.id}
    ran = {name for entry in chosen.values() for name in entry.samplers}
    # not the executed node itself: a sampler that runs again must not use its own earlier run
    for sampler in map(prompt.fingerprint, prompt.upstream(prompt.node_id)[1:]):
        made = [(number, entry) for number, entry in mine if sampler in entry.samplers]
        if made and sampler not in ran:
            chosen |= {number: entry for number, entry in made if entry.prompt == made[-1][1].prompt}
    return [chosen[number].run for number in sorted(chosen) if _is_of_item(chosen[number], chosen, prompt.list_index)]


def _is_of_item(entry: Record, chosen: dict[int, Record], index: int) -> bool:
    """Whether a run belongs to this item of a list; True if its sampler did not run once for each item."""
    indices = {other.list_index for other in chosen.values() if other.samplers == entry.samplers}
    return entry.list_index == index or index not in indices or len(indices) == 1
