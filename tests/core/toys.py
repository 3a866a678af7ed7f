"""Models whose answers are known by hand.

Most of them have a velocity that depends only on sigma. On an all-zero latent, the LFD of two calls
is then |difference of velocities| * sqrt(elements), so that every decision can be worked out.
"""

import torch

from precisecache_core import LFCacheConfig

SHAPE = (1, 4, 4, 8, 8)
EAGER = 100.0  # an alpha that reuses every call after the warm-up


class Toy:
    """A flow denoiser with the given velocity(x, sigma); it records its calls."""

    def __init__(self, velocity):
        self.velocity = velocity
        self.calls = []  # (shape, sigma)

    def __call__(self, x, sigma):
        self.calls.append((tuple(x.shape), sigma.item()))
        return x - sigma * self.velocity(x, sigma)

    @property
    def sizes(self):
        """One letter per call: F for full size, S for smaller."""
        return "".join("F" if shape == SHAPE else "S" for shape, _ in self.calls)


def linear(x, sigma):
    """A velocity that depends on x, as a network's does."""
    return 0.8 * x + 3 * sigma**2


def by_sigma(function):
    return lambda x, sigma: torch.ones_like(x) * function(sigma)


def plain(**settings):
    """Settings that give exact LFDs if the velocity depends only on sigma."""
    return LFCacheConfig(**{"trial": "plain", "reuse": "prediction", **settings})


def noise(shape=SHAPE):
    return torch.randn(shape)


def calls_of(run, xs, sigmas, velocity=linear):
    """Give a run one call per latent and noise level; returns the denoised latents."""
    toy = Toy(velocity)
    return [run.denoised(x, sigma, lambda: toy(x, sigma), toy) for x, sigma in zip(xs, sigmas)]
