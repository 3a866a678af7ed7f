"""ComfyUI's own EasyCache and LazyCache, under conditions that are fair to them.

Source: `comfy_extras/nodes_easycache.py` of the host itself; EasyCache is arXiv 2507.02860
(github.com/H-EmbodVis/EasyCache), LazyCache the host's own simplification of it. The nodes run
as they are, with their default window.
"""

WINDOW = (0.15, 0.95)  # start_percent and end_percent, the nodes' defaults


def attach_easycache(patcher, threshold):
    """The host's EasyCache node with its default window.

    It adds its residual to its input in place, which spoils the result where inference runs in
    float32 (on a CPU); the bundled model hands it a copy (`nodes/host/tiny_model.py`).
    """
    from comfy_extras.nodes_easycache import EasyCacheNode

    return EasyCacheNode.execute(patcher, threshold, *WINDOW, False)[0]


def attach_lazycache(patcher, threshold):
    """The host's LazyCache node with its default window.

    It needs no copy of its input: it sits around PREDICT_NOISE, where its `apply_cache_diff`
    returns `x + cache_diff`, a new tensor (EasyCache's writes `x += …`), and what it keeps of x
    between calls is cloned.
    """
    from comfy_extras.nodes_easycache import LazyCacheNode

    return LazyCacheNode.execute(patcher, threshold, *WINDOW, False)[0]
