"""BlockCache in the host: names the branches of a pass and calls BlockCache in place of the blocks."""

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ...precisecache_core.blockcache.block_pass import BlockPass
from ...precisecache_core.blockcache.plan import Key
from ...precisecache_core.blockcache.run import BlockCacheRun
from ...precisecache_core.blockcache.swap import swapped_forwards
from .trials import TRIAL_FLAG

# attributes in which the host's models keep their blocks, by the kind used in patches_replace
_LISTS = (("double_block", ("double_blocks", "blocks", "transformer_blocks")), ("single_block", ("single_blocks",)))

# models whose host code has no hook: attribute of the blocks, kind of their keys, streams they take and return
_WITHOUT_HOOKS = {
    "CogVideoXTransformer3DModel": (("blocks", "double_block", ("hidden_states", "encoder_hidden_states")),),
}
# models whose hook does not work in Raylight's forward, which drops the first stream of a replaced block
_WITHOUT_HOOKS_IN_RAYLIGHT = {
    "HunyuanVideo": (("double_blocks", "double_block", ("img", "txt")), ("single_blocks", "single_block", ("x",))),
}

# names of the streams that a block may return
_STREAMS = ("img", "txt")


def run_pass(run: BlockCacheRun, executor: Any, options: dict, args: tuple, kwargs: dict) -> Any:
    """Run one pass through the model with BlockCache; returns the model's output.

    executor: of the APPLY_MODEL wrapper. The DIFFUSION_MODEL wrapper would not do: some models never call it
    (Mochi), and torch.compile compiles it.
    options: the transformer_options among args and kwargs; args, kwargs: of the wrapper.
    """
    if options.get(TRIAL_FLAG) or run.is_standing_aside:
        return executor(*args, **kwargs)
    model = executor.class_obj.diffusion_model
    kind = type(getattr(model, "_orig_mod", model)).__name__  # torch.compile wraps the model
    # patches on double_block compute something from the streams after every block
    is_joined = not options.get("patches", {}).get("double_block")
    current = run.open_pass(branches_of(options, len(args[0])), is_joined)
    if swaps := _swapped_blocks(model, kind):
        with ExitStack() as stack:
            for name, key, streams in swaps:
                stack.enter_context(swapped_forwards(getattr(model, name), current, streams, key))
            result = executor(*args, **kwargs)
    else:
        replaced = with_blocks_replaced(options, model, current)
        result = executor(
            *(replaced if a is options else a for a in args),
            **{k: replaced if a is options else a for k, a in kwargs.items()},
        )
    if not current.close():  # another rank failed to skip a block
        result = executor(*args, **kwargs)
    # a pass without blocks is fine once they are known: another cache may have answered in their place
    if not run.order.keys:
        run.stand_aside(f"the blocks of {kind} cannot be found")
    return result


def _swapped_blocks(model: nn.Module, kind: str) -> tuple:
    """The blocks of a model whose `forward` has to be swapped, because it has no hook that works: rows as above."""
    forward = getattr(model, "forward_orig", None)
    if getattr(forward, "__module__", "").startswith("raylight."):
        return _WITHOUT_HOOKS_IN_RAYLIGHT.get(kind, ())
    return _WITHOUT_HOOKS.get(kind, ())


def branches_of(options: dict, batch: int) -> list[tuple[Hashable, slice]]:
    """The guidance branches in a batch, [(name, slice of the batch)].

    A name consists of the host's uuid, the context window and the patches of other packs on blocks:
    skip-layer guidance runs a branch with and without such patches.
    options: transformer_options. batch: size of the whole batch.
    """
    uuids = tuple(str(uuid) for uuid in options.get("uuids") or [None])
    window = options.get("context_window")
    window = None if window is None else tuple(window.index_list)
    patches = frozenset((key, id(patch)) for key, patch in options.get("patches_replace", {}).get("dit", {}).items())
    size, rest = divmod(batch, len(uuids))
    if rest or not size:
        # a wrapper of another pack has split the batch, so the branches cannot be told apart
        return [((uuids, window, patches), slice(0, batch))]
    return [((uuid, window, patches), slice(i * size, (i + 1) * size)) for i, uuid in enumerate(uuids)]


def block_keys(model: nn.Module) -> list[Key]:
    """The key in `patches_replace` of every block of the model."""
    keys = []
    for kind, names in _LISTS:
        lists = (getattr(model, name, None) for name in names)
        blocks = next((b for b in lists if isinstance(b, nn.ModuleList)), ())
        keys += [(kind, i) for i in range(len(blocks))]
    return keys


def with_blocks_replaced(options: dict, model: nn.Module, block_pass: BlockPass) -> dict:
    """A copy of transformer_options in which every block goes through the pass.

    A patch of another pack on a block is called in place of that block.
    """
    replace = dict(options.get("patches_replace", {}))
    dit = replace["dit"] = dict(replace.get("dit", {}))
    for key in block_keys(model):
        dit[key] = _patch(block_pass, key, dit.get(key))
    return {**options, "patches_replace": replace}


def _patch(block_pass: BlockPass, key: Key, other: Callable | None) -> Callable:
    # torch.compile must not trace this: it would repeat the decisions of the first pass in every pass
    @torch.compiler.disable(recursive=False)
    def patch(args: dict, extra: dict) -> dict:
        def compute() -> dict:
            if not other:
                return extra["original_block"](args)
            result = other(args, extra)
            # skip-layer guidance returns all its arguments: those that are no streams are left out
            if isinstance(result, dict):
                result = {n: v for n, v in result.items() if n in _STREAMS or v is not args.get(n)}
            return result

        return block_pass.run_block(key, {n: args[n] for n in _STREAMS if n in args}, compute)

    return patch
