"""Where a peer's method keeps the state of one sampling run."""


def attach_run(patcher, key, open_run):
    """A clone of the patcher that calls `open_run` at the start of every sampling run.

    key: the wrapper's key; attaching again with the same key replaces the earlier wrapper.
    open_run(model, options, steps): model: the diffusion model; options: transformer_options that
        only this run sees, which hold its state; steps: how many steps the run has.
    However the run ends, the guider gets its own options back, and the run's options are dropped with
    the state.
    """
    from comfy.model_patcher import create_model_options_clone
    from comfy.patcher_extension import WrappersMP

    def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        original = guider.model_options
        guider.model_options = create_model_options_clone(original)
        try:
            open_run(
                guider.model_patcher.model.diffusion_model,
                guider.model_options.setdefault("transformer_options", {}),
                len(sigmas) - 1,
            )
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finally:
            guider.model_options = original

    patcher = patcher.clone()
    patcher.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, key)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, outer_sample)
    return patcher


def options_of(args, kwargs):
    """transformer_options among the arguments of a DIFFUSION_MODEL wrapper."""
    return next(a for a in (kwargs.get("transformer_options"), *args) if isinstance(a, dict))
