"""Kept outputs of the modules inside the model's blocks, used in place of running them.

The host has no hook around a block's attention and feed-forward layers. Their `forward` is therefore
swapped for one pass and restored after it, as the pack does for models without hooks.
"""

from contextlib import ExitStack

from benchmarks.peers.run_state import attach_run, options_of
from precisecache_core.blockcache.swap import swapped_forwards

MODULES = ("self_attn", "cross_attn", "ffn")


def attach_modules(patcher, key, new_state, names=MODULES):
    """A clone of the patcher in which a state decides whether these modules of every block run.

    new_state(): makes the state of one composition of the batch (its guidance branches) in one run,
        with `start_call(sigma)` and `run_block((name, index), {"x": input}, compute)`;
        `compute()` returns {"x": output}, as `run_block` does.
    names: attributes of a block; "block" is the block itself.
    """
    from comfy.patcher_extension import WrappersMP
    from PreciseCache.nodes.host.blockcache import branches_of

    def open_run(model, options, steps):
        options[key] = _States(new_state)

    def diffusion_model(executor, x, *args, **kwargs):
        options = options_of(args, kwargs)
        branches = branches_of(options, len(x))
        state = options[key].of(tuple(name for name, _ in branches))
        state.start_call(options["sigmas"].flatten()[0].item())
        blocks = executor.class_obj.blocks
        with ExitStack() as stack:
            for name in names:
                modules = [block if name == "block" else getattr(block, name) for block in blocks]
                stack.enter_context(swapped_forwards(modules, state, kind=name))
            return executor(x, *args, **kwargs)

    patcher = attach_run(patcher, key, open_run)
    patcher.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, key)
    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, diffusion_model)
    return patcher


class _States:
    """One run's states, by composition of the batch. It is no dict, because the host copies dicts."""

    def __init__(self, new_state):
        self.new_state = new_state
        self.states = {}

    def of(self, name):
        if name not in self.states:
            self.states[name] = self.new_state()
        return self.states[name]
