"""A plain Euler sampler for rectified flow with guidance, for use without ComfyUI."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from .blockcache.config import BlockCacheConfig
from .blockcache.run import EVERYWHERE
from .blockcache.swap import block_cached
from .cached_run import CachedRun
from .group import ALONE, Group
from .lfcache.config import LFCacheConfig
from .lfcache.latent.parametrization import Parametrization
from .lfcache.latent.trial import FLOW
from .lfcache.window import WHOLE_SCHEDULE

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def flow_sigmas(steps: int, shift: float = 1.0) -> torch.Tensor:
    """Noise levels of a flow schedule, (steps + 1,) float32 from 1 to 0.

    Source: the timestep shift of SD3 (arXiv:2403.03206, Section 5.3.2).
    shift: 1 spaces the levels evenly; a larger shift spends more steps at high noise.
    """
    t = torch.linspace(1, 0, steps + 1)
    return shift * t / (1 + (shift - 1) * t)


def flow_affine(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(a, b), tensors like sigma, with denoised = a x + b velocity for rectified flow."""
    return torch.ones_like(sigma), -sigma


FLOW_MODEL = Parametrization(flow_affine, FLOW, sigma_min=1e-3)


def guided(velocity: Callable, cond: torch.Tensor, uncond: torch.Tensor, cfg: float) -> Denoiser:
    """A denoiser f(x, sigma) that applies classifier-free guidance to a velocity network.

    velocity(x, t, context): the network, called once with cond and uncond in one batch of 2 B;
        t is 1000 sigma, (2 B,). Returns the velocity in x's shape.
    cond, uncond: contexts, (1 or B, tokens, dim). cfg: the guidance scale.
    """

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        context = torch.cat([c.expand(batch, -1, -1) for c in (cond, uncond)])
        t = (sigma * 1000).reshape(1).expand(2 * batch)
        positive, negative = velocity(x.repeat(2, *[1] * (x.ndim - 1)), t, context).chunk(2)
        return x - sigma * (negative + cfg * (positive - negative))

    return denoise


@torch.inference_mode()
def sample_flow(
    denoise: Denoiser,
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    lfcache: LFCacheConfig | None = None,
    blockcache: BlockCacheConfig | None = None,
    blocks: Sequence[nn.Module] = (),
    model_name: str = "model",
    on_step: Callable[[int], object] = lambda done: None,
    group: Group = ALONE,
) -> tuple[torch.Tensor, dict | None]:
    """Sample with Euler steps.

    denoise(x, sigma): a guided denoiser for a latent of any size; sigma is 0-dim.
    noise: (B, C, T, H, W), standard normal. sigmas: (steps + 1,), descending.
    lfcache: an LFCacheConfig, or None to compute every step.
    blockcache: a BlockCacheConfig or None. blocks: the modules that it may skip. A call of denoise runs
        each of them once, as block(x, …); each returns a tensor like x.
    model_name: for the report. on_step: called after each step with the number of steps done.
    Returns (latent, report entry); the entry is None if neither cache is used.
    """
    x = noise * sigmas[0]
    if lfcache is None and blockcache is None:
        for done, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:]), 1):
            x = euler_step(x, denoise(x, sigma), sigma, following)
            on_step(done)
        return x, None
    run = CachedRun(
        lfcache,
        blockcache,
        FLOW_MODEL,
        len(sigmas) - 1,
        device=noise.device,
        name=model_name,
        latent_shape=noise.shape,
        sigma_window=percent_window(lfcache, sigmas) if lfcache else WHOLE_SCHEDULE,
        block_start_sigma=start_sigma(blockcache, sigmas) if blockcache else EVERYWHERE,
        schedule=sigmas.tolist(),
        group=group,
    )
    try:
        with run.sampling():
            for done, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:]), 1):

                def model() -> torch.Tensor:
                    if run.blockcache is None:
                        return denoise(x, sigma)
                    return block_cached(run.blockcache, blocks, lambda: denoise(x, sigma), sigma)

                x = euler_step(x, run.denoised(x, sigma, model, denoise), sigma, following)
                on_step(done)
        run.end()
        return x, run.report()
    finally:
        run.release()


def euler_step(x: torch.Tensor, denoised: torch.Tensor, sigma: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """One Euler step from sigma to the following noise level (both 0-dim); returns the new x."""
    return x + (x - denoised) / sigma * (following - sigma)


def percent_window(config: LFCacheConfig, sigmas: torch.Tensor) -> tuple[float, float]:
    """(high, low): the noise levels at start_percent and end_percent of the steps."""
    high, low = WHOLE_SCHEDULE
    last = len(sigmas) - 2
    if config.start_percent > 0:
        high = sigmas[int(config.start_percent * last + 0.5)].item()
    if config.end_percent < 1:
        low = sigmas[int(config.end_percent * last + 0.5)].item()
    return high, low


def start_sigma(config: BlockCacheConfig, sigmas: torch.Tensor) -> float:
    """The noise level at start_percent of the steps, from which blocks may be skipped."""
    if config.start_percent == 0:
        return EVERYWHERE
    return sigmas[round(config.start_percent * (len(sigmas) - 2))].item()
