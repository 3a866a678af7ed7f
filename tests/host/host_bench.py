"""Short ways to sample in the real host, for the tests beside this file."""

import sys

import comfy.sample
import comfy.samplers
import torch


def host_layer(name):
    """A module of the pack's host layer, under the name ComfyUI gives the pack."""
    __import__(f"PreciseCache.nodes.host.{name}")
    return sys.modules[f"PreciseCache.nodes.host.{name}"]


class Bench:
    """The tiny model and one small latent, sampled as the stock nodes do it."""

    def __init__(self):
        tiny = host_layer("tiny_model")
        self.model = tiny.load_model()
        self.positive = tiny.conditioning("star", "orange", "right")
        self.negative = tiny.conditioning()
        self.attach = host_layer("lfcache").attach
        self.reports = host_layer("reports")

    def lfcache(self, **settings):
        """The tiny model with LFCache."""
        config = sys.modules["PreciseCache.precisecache_core.config"].LFCacheConfig(**settings)
        return self.attach(self.model, config)

    def report(self, model):
        """The last run's report entry of a model from `lfcache`."""
        return self.reports.runs_of(host_layer("lfcache").attachment_of(model).id)[-1]

    @staticmethod
    def noise(shape=(1, 16, 2, 8, 8), seed=0):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def sample(self, model, sampler="euler", scheduler="simple", steps=10, cfg=4.0, noise=None, denoise=1.0,
               latent=None, seed=0, **kwargs):
        """KSampler: returns the latent it would output."""
        noise = self.noise() if noise is None else noise
        latent = torch.zeros_like(noise) if latent is None else latent
        return comfy.sample.sample(model, noise, steps, cfg, sampler, scheduler, self.positive, self.negative,
                                   latent, denoise=denoise, seed=seed, disable_pbar=True, **kwargs)
