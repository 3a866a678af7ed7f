"""A plain Euler sampler for rectified flow with guidance, for use without ComfyUI."""

from contextlib import nullcontext

import torch

from .blockcache.run import BlockCacheRun
from .blockcache.swap import block_cached
from .lfcache.config import MINIMUM_STEPS
from .lfcache.run import LFCacheRun
from .lfcache.trial import FLOW


def flow_sigmas(steps, shift=1.0):
    """Noise levels of a flow schedule, (steps + 1,) float32 from 1 to 0.

    Source: the timestep shift of SD3 (arXiv:2403.03206, Section 5.3.2).
    """
    t = torch.linspace(1, 0, steps + 1)
    return shift * t / (1 + (shift - 1) * t)


NO_WINDOW = (float("inf"), 0.0)  # every noise level


def flow_affine(sigma):
    """(a, b) with denoised = a x + b velocity for rectified flow."""
    return torch.ones_like(sigma), -sigma


def guided(velocity, cond, uncond, cfg):
    """A denoiser f(x, sigma) with classifier-free guidance from a velocity network.

    velocity(x, t, context): the network; t is 1000 sigma, (B,).
    cond, uncond: contexts, (1 or B, tokens, dim); cfg: guidance scale.
    """
    def denoise(x, sigma):
        count = x.shape[0]
        context = torch.cat([c.expand(count, -1, -1) for c in (cond, uncond)])
        t = (sigma * 1000).reshape(1).expand(2 * count)
        positive, negative = velocity(x.repeat(2, *[1] * (x.ndim - 1)), t, context).chunk(2)
        return x - sigma * (negative + cfg * (positive - negative))

    return denoise


@torch.inference_mode()
def sample_flow(denoise, noise, sigmas, lfcache=None, blockcache=None, blocks=(), model_name="model"):
    """Sample with Euler steps; returns (latent, report entry or None).

    denoise(x, sigma): guided denoiser for a latent of any size, sigma 0-dim.
    noise: (B, C, T, H, W); sigmas: (steps + 1,), descending.
    lfcache: an LFCacheConfig, or None to compute every step.
    blockcache: a BlockCacheConfig or None; blocks: the modules it works on, which a call
        of denoise passes through once, each called as block(x, …) and returning a tensor.
    """
    steps = len(sigmas) - 1
    x = noise * sigmas[0]
    if lfcache is None and blockcache is None:
        for sigma, following in zip(sigmas[:-1], sigmas[1:]):
            x = euler_step(x, denoise(x, sigma), sigma, following)
        return x, None
    run = LFCacheRun(lfcache, flow_affine, FLOW, sigma_min=1e-3, device=noise.device,
                     sigma_window=percent_window(lfcache, sigmas) if lfcache else NO_WINDOW)
    block_run = BlockCacheRun(blockcache) if blockcache else None
    if steps < MINIMUM_STEPS:
        run.stand_aside(f"{steps} steps are too few to skip any")
        if block_run:
            block_run.stand_aside(f"{steps} steps are too few to skip blocks in any")
    start = round(blockcache.start_percent * (steps - 1)) if blockcache else 0

    try:
        with run.sampling():
            for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:])):
                def model():
                    cached = block_cached(block_run, blocks, step >= start) if block_run else nullcontext()
                    with cached:
                        return denoise(x, sigma)

                x = euler_step(x, run.denoised(x, sigma, model, denoise), sigma, following)
        entry = run.report(model_name, noise.shape, steps)
        if block_run:
            block_run.add_to(entry)
    finally:
        run.release()
        if block_run:
            block_run.release()
    return x, entry


def euler_step(x, denoised, sigma, following):
    """One Euler step from sigma to the following noise level."""
    return x + (x - denoised) / sigma * (following - sigma)


def percent_window(config, sigmas):
    """(high, low) noise levels of start_percent and end_percent of this schedule's steps."""
    high, low = float("inf"), 0.0
    last = len(sigmas) - 2
    if config.start_percent > 0:
        high = sigmas[int(config.start_percent * last + 0.5)].item()
    if config.end_percent < 1:
        low = sigmas[int(config.end_percent * last + 0.5)].item()
    return high, low
