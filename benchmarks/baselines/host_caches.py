"""ComfyUI's own EasyCache, under conditions that are fair to it."""


def attach_easycache(patcher, threshold):
    """The host's EasyCache node with its default window, and a copy of its input.

    EasyCache adds its residual into its input in place. Where inference runs in float32
    that input is also used to form the result, which would spoil it; a wrapper in front
    of it hands it a copy.
    """
    from comfy.patcher_extension import WrappersMP
    from comfy_extras.nodes_easycache import EasyCacheNode

    patcher = patcher.clone()
    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "copy_input", copy_input)
    return EasyCacheNode.execute(patcher, threshold, 0.15, 0.95, False)[0]


def copy_input(executor, x, *args, **kwargs):
    """DIFFUSION_MODEL: the same call on a copy of x."""
    return executor(x.clone(), *args, **kwargs)
