"""BlockCache on the blocks of a transformer of diffusers."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from ..blockcache.run import BlockCacheRun
from ..blockcache.swap import swapped_forwards
from .hooked import is_compiled


@dataclass(frozen=True)
class Blocks:
    """Blocks that BlockCache may skip: their attribute, the kind of their keys, the streams they take and return."""

    attribute: str
    kind: str
    streams: tuple[str, ...]


def blocks_cached(
    run: BlockCacheRun | None, kinds: Sequence[Blocks], module: Any, number: int, compute: Callable[[], Any]
) -> Any:
    """The result of one call of a transformer, with BlockCache on its blocks.

    run: None for none. kinds: the module's blocks; none if they are not known. number: of this call in its step.
    compute(): calls the transformer; called again if another rank failed to skip a block.
    """
    if run is None or run.is_standing_aside:
        return compute()
    if not kinds:
        run.stand_aside(f"the blocks of {type(module).__name__} are not known")
    elif is_compiled(module):
        run.stand_aside("the transformer is compiled as one, use compile_repeated_blocks() instead")
    elif torch.is_grad_enabled():
        run.stand_aside("gradients are kept, so use torch.no_grad()")
    if run.is_standing_aside:
        return compute()
    current = run.open_pass([((id(module), number), slice(None))])
    with ExitStack() as stack:
        for blocks in kinds:
            stack.enter_context(
                swapped_forwards(getattr(module, blocks.attribute), current, blocks.streams, blocks.kind)
            )
        result = compute()
    return result if current.close() else compute()
