"""BlockCache in the host: which pass it is, and BlockCache in place of the blocks."""

import torch
from torch import nn

from ...precisecache_core.blockcache.run import BlockCacheRun
from ...precisecache_core.blockcache.swap import swapped_forwards
from ...precisecache_core.lfcache.config import MINIMUM_STEPS
from .lfcache import TRIAL_FLAG

# where the host's models keep their blocks, by its name for the kind in patches_replace
_LISTS = (("double_block", ("double_blocks", "blocks", "transformer_blocks")),
          ("single_block", ("single_blocks",)))

# models whose host code offers no hook: list of blocks, streams that a block takes and returns
_WITHOUT_HOOKS = {
    "CogVideoXTransformer3DModel": ("blocks", ("hidden_states", "encoder_hidden_states")),
}

# names of the streams that a block may return
_STREAMS = ("img", "txt")


class GuidedBlocks:
    """BlockCacheRun plus what it has to know of the host."""

    def __init__(self, config, guider, steps):
        self.cache = BlockCacheRun(config)
        self.start_sigma = None
        if config.start_percent > 0:
            sampling = guider.model_patcher.get_model_object("model_sampling")
            self.start_sigma = sampling.percent_to_sigma(config.start_percent)
        if steps < MINIMUM_STEPS:
            self.cache.stand_aside(f"{steps} steps are too few to skip blocks in any")

    def begin_call(self, timestep):
        """A computed call follows. With start_percent this reads the noise level back."""
        self.cache.begin_call(self.start_sigma is None or timestep.flatten()[0].item() <= self.start_sigma)

    def run_pass(self, executor, options, args, kwargs):
        """The model's answer, its blocks through BlockCache.

        executor: what the APPLY_MODEL wrapper was given. Not DIFFUSION_MODEL, which not every
        model of the host calls (Mochi does not) and which lies inside a compiled model.
        """
        if options.get(TRIAL_FLAG) or self.cache.is_standing_aside:
            return executor(*args, **kwargs)
        model = executor.class_obj.diffusion_model
        kind = type(getattr(model, "_orig_mod", model)).__name__  # torch.compile wraps the model
        # patches on double_block compute something from the streams after every block
        current = self.cache.open_pass(branches_of(options, len(args[0])),
                                       is_joined=not options.get("patches", {}).get("double_block"))
        if kind in _WITHOUT_HOOKS:
            name, streams = _WITHOUT_HOOKS[kind]
            with swapped_forwards(getattr(model, name), current, streams):
                result = executor(*args, **kwargs)
        else:
            replaced = with_blocks_replaced(options, model, current)
            args = [replaced if a is options else a for a in args]
            kwargs = {k: replaced if a is options else a for k, a in kwargs.items()}
            result = executor(*args, **kwargs)
        current.close()
        # another cache may have answered in place of the blocks: then they are known from before
        if not self.cache.keys:
            self.cache.stand_aside(f"the blocks of {kind} cannot be found")
        return result

    def release(self):
        """Let go of every tensor."""
        self.cache.release()


def branches_of(options, batch):
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


def block_keys(model):
    """The keys in `patches_replace` of every block that the model has."""
    keys = []
    for kind, names in _LISTS:
        lists = (getattr(model, name, None) for name in names)
        blocks = next((b for b in lists if isinstance(b, nn.ModuleList)), ())
        keys += [(kind, i) for i in range(len(blocks))]
    return keys


def with_blocks_replaced(options, model, block_pass):
    """A copy of transformer_options in which every block goes through the pass.

    A patch that another pack holds on a block is called as the original.
    """
    replace = dict(options.get("patches_replace", {}))
    dit = replace["dit"] = dict(replace.get("dit", {}))
    for key in block_keys(model):
        dit[key] = _patch(block_pass, key, dit.get(key))
    return {**options, "patches_replace": replace}


def _patch(block_pass, key, other):
    # torch.compile must not look inside: it would fix the decisions of the first pass for ever
    @torch.compiler.disable(recursive=False)
    def patch(args, extra):
        def compute():
            if not other:
                return extra["original_block"](args)
            result = other(args, extra)
            # skip-layer guidance answers with its arguments: those are not streams
            if isinstance(result, dict):
                result = {n: v for n, v in result.items() if n in _STREAMS or v is not args.get(n)}
            return result

        return block_pass.run_block(key, {n: args[n] for n in _STREAMS if n in args}, compute)

    return patch
