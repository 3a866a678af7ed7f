"""Where a baseline keeps the state of one sampling run."""


def attach_run(patcher, key, open_run):
    """A clone of the patcher on which every sampling run begins with `open_run`.

    key: of the wrapper; attaching again under it replaces what was there.
    open_run(model, options, steps): model: the diffusion model; options: transformer_options
        that only this run sees, to put its state into; steps: how many the run has.
    Whatever ends the run, the guider gets its own options back and the state goes with the others.
    """
    from comfy.model_patcher import create_model_options_clone
    from comfy.patcher_extension import WrappersMP

    def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        original = guider.model_options
        guider.model_options = create_model_options_clone(original)
        try:
            open_run(guider.model_patcher.model.diffusion_model,
                     guider.model_options.setdefault("transformer_options", {}), len(sigmas) - 1)
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
