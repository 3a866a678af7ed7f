"""BlockCache for models without a hook: it replaces the `forward` of the blocks for one pass."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from .block_pass import BlockPass
from .plan import Key
from .run import BlockCacheRun

Result = TypeVar("Result")

COMPILED = "_compiled_call_impl"  # where torch keeps what `module.compile()` made


@contextmanager
def swapped_forwards(
    blocks: Sequence[nn.Module], block_pass: BlockPass, streams: Sequence[str] = ("x",), kind: str = "double_block"
) -> Iterator[None]:
    """A context in which every call of a module in `blocks` goes through the pass.

    blocks: the modules in the model's order. kind: the first part of their keys.
    streams: names of the arguments that a block takes and returns, in the order of its result; with one
        name the block returns a tensor, with several a tuple.
    The modules' own `forward` is back afterwards, even after an error. Of a block that was compiled by `compile()`,
    what torch calls in place of its `forward` is replaced, so that the compiled code stays as it is.
    """
    originals = []
    try:
        for index, block in enumerate(blocks):
            name = COMPILED if block.__dict__.get(COMPILED) is not None else "forward"
            own = block.__dict__.get(name)
            signature = inspect.signature(block.forward)
            setattr(block, name, _through(getattr(block, name), signature, block_pass, (kind, index), streams))
            originals.append((block, name, own))
        yield
    finally:
        for block, name, own in originals:
            delattr(block, name)
            if own is not None:
                setattr(block, name, own)


def block_cached(
    run: BlockCacheRun, blocks: Sequence[nn.Module], compute: Callable[[], Result], sigma: torch.Tensor | float = 0.0
) -> Result:
    """The result of one computed call of a model outside ComfyUI, with BlockCache on its blocks.

    run: the BlockCacheRun. blocks: the modules in the model's order, each called as block(x, …) and
        returning a tensor like x, (B, tokens, dim). sigma: the call's noise level.
    compute(): calls the model exactly once: the whole batch counts as one branch, so all guidance branches
        have to be in it. It is called again if another rank failed to skip a block.
    """
    run.begin_call(sigma)
    current = run.open_pass([("model", slice(None))])
    with swapped_forwards(blocks, current):
        result = compute()
    return result if current.close() else compute()


def _through(
    forward: Callable, signature: inspect.Signature, block_pass: BlockPass, key: Key, names: Sequence[str]
) -> Callable:
    def replacement(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments

        def compute() -> dict[str, torch.Tensor]:
            result = forward(*args, **kwargs)
            return dict(zip(names, (result,) if len(names) == 1 else result))

        result = block_pass.run_block(key, {n: given[n] for n in names}, compute)
        return result[names[0]] if len(names) == 1 else tuple(result[n] for n in names)

    return replacement
