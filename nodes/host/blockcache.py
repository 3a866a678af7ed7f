"""BlockCache in the host: which pass it is, and BlockCache in place of the blocks."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from ...precisecache_core.blockcache.block_pass import BlockPass
from ...precisecache_core.blockcache.plan import Key
from ...precisecache_core.blockcache.run import BlockCacheRun
from ...precisecache_core.blockcache.swap import swapped_forwards
from .trials import TRIAL_FLAG

# where the host's models keep their blocks, by its name for the kind in patches_replace
_LISTS = (("double_block", ("double_blocks", "blocks", "transformer_blocks")),
          ("single_block", ("single_blocks",)))

# models whose host code offers no hook: list of blocks, streams that a block takes and returns
_WITHOUT_HOOKS = {
    "CogVideoXTransformer3DModel": ("blocks", ("hidden_states", "encoder_hidden_states")),
}

# names of the streams that a block may return
_STREAMS = ("img", "txt")


def run_pass(run: BlockCacheRun, executor: Any, options: dict, args: tuple, kwargs: dict) -> Any:
    """The model's answer, its blocks through BlockCache.

    executor: what the APPLY_MODEL wrapper was given. Not DIFFUSION_MODEL, which not every model of the host
    calls (Mochi does not) and which lies inside a compiled model.
    options: the transformer_options among args and kwargs.
    """
    if options.get(TRIAL_FLAG) or run.is_standing_aside:
        return executor(*args, **kwargs)
    model = executor.class_obj.diffusion_model
    kind = type(getattr(model, "_orig_mod", model)).__name__  # torch.compile wraps the model
    # patches on double_block compute something from the streams after every block
    is_joined = not options.get("patches", {}).get("double_block")
    current = run.open_pass(branches_of(options, len(args[0])), is_joined)
    if kind in _WITHOUT_HOOKS:
        name, streams = _WITHOUT_HOOKS[kind]
        with swapped_forwards(getattr(model, name), current, streams):
            result = executor(*args, **kwargs)
    else:
        replaced = with_blocks_replaced(options, model, current)
        args = tuple(replaced if a is options else a for a in args)
        kwargs = {k: replaced if a is options else a for k, a in kwargs.items()}
        result = executor(*args, **kwargs)
    current.close()
    # another cache may have answered in place of the blocks: then they are known from before
    if not run.order.keys:
        run.stand_aside(f"the blocks of {kind} cannot be found")
    return result


def branches_of(options: dict, batch: int) -> list[tuple[Hashable, slice]]:
    """[(name, slice)] of the guidance branches in a batch.

    Named by the host's uuid, the context window, and the patches that others hold on blocks:
    skip-layer guidance sends a branch through the model with and without them.
    """
    uuids = tuple(str(uuid) for uuid in options.get("uuids") or [None])
    window = options.get("context_window")
    window = None if window is None else tuple(window.index_list)
    patches = frozenset((key, id(patch)) for key, patch in options.get("patches_replace", {}).get("dit", {}).items())
    size, rest = divmod(batch, len(uuids))
    if rest or not size:
        # a wrapper of another pack has taken the batch apart: what is in it, only the order tells
        return [((uuids, window, patches), slice(0, batch))]
    return [((uuid, window, patches), slice(i * size, (i + 1) * size)) for i, uuid in enumerate(uuids)]


def block_keys(model: nn.Module) -> list[Key]:
    """The keys in `patches_replace` of every block that the model has."""
    keys = []
    for kind, names in _LISTS:
        lists = (getattr(model, name, None) for name in names)
        blocks = next((b for b in lists if isinstance(b, nn.ModuleList)), ())
        keys += [(kind, i) for i in range(len(blocks))]
    return keys


def with_blocks_replaced(options: dict, model: nn.Module, block_pass: BlockPass) -> dict:
    """A copy of transformer_options in which every block goes through the pass.

    A patch that another pack holds on a block is called as the original.
    """
    replace = dict(options.get("patches_replace", {}))
    dit = replace["dit"] = dict(replace.get("dit", {}))
    for key in block_keys(model):
        dit[key] = _patch(block_pass, key, dit.get(key))
    return {**options, "patches_replace": replace}


def _patch(block_pass: BlockPass, key: Key, other: Callable | None) -> Callable:
    # torch.compile must not look inside: it would fix the decisions of the first pass for ever
    @torch.compiler.disable(recursive=False)
    def patch(args: dict, extra: dict) -> dict:
        def compute() -> dict:
            if not other:
                return extra["original_block"](args)
            result = other(args, extra)
            # skip-layer guidance answers with its arguments: those are not streams
            if isinstance(result, dict):
                result = {n: v for n, v in result.items() if n in _STREAMS or v is not args.get(n)}
            return result

        return block_pass.run_block(key, {n: args[n] for n in _STREAMS if n in args}, compute)

    return patch
