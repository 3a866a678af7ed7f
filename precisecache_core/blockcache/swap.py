"""BlockCache for models without a hook: the blocks' own `forward`, swapped for one pass."""

import inspect
from contextlib import contextmanager


@contextmanager
def swapped_forwards(blocks, block_pass, streams=("x",), kind="double_block"):
    """While inside, every module in `blocks` goes through the pass; afterwards none does.

    streams: names of the arguments that a block takes and returns, in the order of its
        result (one name: it returns a tensor, several: a tuple).
    """
    originals = []
    try:
        for index, block in enumerate(blocks):
            own = block.__dict__.get("forward")
            block.forward = _through(block.forward, block_pass, (kind, index), streams)
            originals.append((block, own))
        yield
    finally:
        for block, own in originals:
            del block.forward
            if own is not None:
                block.forward = own


@contextmanager
def block_cached(run, blocks, is_allowed=True):
    """One computed call of a model outside ComfyUI, its `blocks` (modules) through a BlockCacheRun.

    The blocks are called as block(x, …) and return a tensor like x. The whole batch counts
    as one branch, and inside the model is called once: guidance branches go in one batch.
    """
    run.begin_call(is_allowed)
    current = run.open_pass([("model", slice(None))])
    with swapped_forwards(blocks, current):
        yield
    current.close()


def _through(forward, block_pass, key, names):
    signature = inspect.signature(forward)

    def replacement(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments

        def compute():
            result = forward(*args, **kwargs)
            return dict(zip(names, (result,) if len(names) == 1 else result))

        result = block_pass.run_block(key, {n: given[n] for n in names}, compute)
        return result[names[0]] if len(names) == 1 else tuple(result[n] for n in names)

    return replacement
