"""What runs in Raylight's workers: the caches on the worker's model, for one run of a sampler.

`workers` sends these functions' names and plain arguments; a worker imports this module by the pack's folder.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ...precisecache_core.blockcache.config import BlockCacheConfig
from ...precisecache_core.group import ALONE, Group, GroupLost, TorchGroup
from ...precisecache_core.lfcache.config import LFCacheConfig
from . import reports
from .attachment import Attachment, attachment_of, put_on

# Seconds that a worker waits for the others before a run. They are told at the same time.
MEETING = 60.0

logger = logging.getLogger("precisecache")

_groups: dict[tuple[int, ...], TorchGroup] = {}  # of this process, by their ranks


def begin(model: Any, settings: Mapping[str, Any], layout: Mapping[str, Any]) -> bool:
    """Put the caches on the worker's model, until `end`. Returns whether all workers of the group have done so.

    The model is Raylight's own in this process, and is changed in place: a clone of one whose weights are divided would
    have to be loaded anew. settings: see `settings_of`. layout: Raylight's parallel_dict. Whatever fails, the model is
    sampled without the caches, on all workers of the group.
    """
    put_on(model, None)
    try:
        group = group_of(layout)
        attachment, obstacle = None, None
        try:
            attachment = attachment_from(settings, group)
        except Exception as error:  # the others have to hear of it
            obstacle = str(error)
        told = group.exchange({"obstacle": obstacle, "settings": repr(sorted(settings.items()))})
    except (GroupLost, RuntimeError, ValueError) as error:
        told = [{"obstacle": str(error)}]
    if reasons := [other["obstacle"] for other in told if other["obstacle"]]:
        logger.warning("PreciseCache: sampling without the caches: %s", reasons[0])
        return False
    if any(other != told[0] for other in told):
        logger.warning("PreciseCache: sampling without the caches: the workers have different settings")
        return False
    put_on(model, attachment)
    return True


def end(model: Any) -> dict:
    """Take the caches off the worker's model; returns the report entries of its runs.

    {"runs": [entry, …], "is_first": whether this worker speaks for its group}.
    """
    attachment = attachment_of(model)
    put_on(model, None)
    if attachment is None:
        return {"runs": [], "is_first": True}
    return {"runs": reports.take_runs(attachment.id), "is_first": attachment.group.rank == 0}


def attachment_from(settings: Mapping[str, Any], group: Group) -> Attachment:
    """The Attachment that settings from another process describe. Raises ValueError if they are not valid."""
    lfcache, blockcache = settings["lfcache"], settings["blockcache"]
    return Attachment(
        {},
        None if lfcache is None else LFCacheConfig(**lfcache),
        None if blockcache is None else BlockCacheConfig(**blockcache),
        remarks=settings["remarks"],
        labels=settings["labels"],
        group=group,
    )


def group_of(layout: Mapping[str, Any]) -> Group:
    """The workers that compute the same latent as this one.

    layout: Raylight's parallel_dict. Workers with the same latent share its tokens (ulysses, ring), its guidance
    branches (cfg) or its weights (FSDP). Data parallelism is left out: each replica samples a latent of its own.
    """
    if not dist.is_available() or not dist.is_initialized():
        return ALONE
    ranks = ranks_together(layout, dist.get_rank(), dist.get_world_size())
    if len(ranks) == 1:
        return ALONE
    if ranks not in _groups:
        made = dist.new_group(
            list(ranks), backend="gloo", timeout=timedelta(seconds=MEETING), use_local_synchronization=True
        )
        _groups[ranks] = TorchGroup(made)
    return _groups[ranks]


def ranks_together(layout: Mapping[str, Any], rank: int, size: int) -> tuple[int, ...]:
    """The ranks that sample the latent of this rank.

    rank, size: of the process group. With FSDP and several replicas, Raylight makes a process group for each replica.
    """
    if layout.get("is_fsdp"):
        return tuple(range(size))
    if not layout.get("is_xdit"):
        return (rank,)
    degrees = (layout.get(f"{name}_degree") or 1 for name in ("ulysses", "ring", "cfg"))
    together = 1
    for degree in degrees:
        together *= max(1, int(degree))
    first = rank - rank % together  # of a replica: its ranks follow each other
    return tuple(range(first, min(first + together, size)))


def settings_of(attachment: Attachment) -> dict[str, Any]:
    """An Attachment's settings as plain values, for another process."""
    configs = {"lfcache": attachment.lfcache, "blockcache": attachment.blockcache}
    plain = {name: None if config is None else vars(config) for name, config in configs.items()}
    remarks: Sequence[str] = list(attachment.remarks)
    return {**plain, "remarks": remarks, "labels": dict(attachment.labels)}
