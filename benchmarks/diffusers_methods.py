"""What the comparison on a diffusers pipeline runs: ours, and diffusers' own caches through their public switch."""

import logging
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

from precisecache_core.pipelines.diffusers import apply_precisecache

OURS = "precisecache"


@dataclass(frozen=True)
class Method:
    """One row: its name, its family, and apply(pipe, steps), a context in which the pipe is cached."""

    name: str
    family: str
    apply: Callable


def ours(name, family=OURS, **settings):
    @contextmanager
    def apply(pipe, steps):
        with apply_precisecache(pipe, **settings) as cache:
            yield cache

    return Method(name, family, apply)


def theirs(name, family, config_of):
    """config_of(pipe, steps): the configuration for `enable_cache`."""

    @contextmanager
    def apply(pipe, steps):
        pipe.transformer.enable_cache(config_of(pipe, steps))
        try:
            yield None
        finally:
            pipe.transformer.disable_cache()

    return Method(name, family, apply)


def first_block(threshold):
    def config(pipe, steps):
        from diffusers import FirstBlockCacheConfig

        return FirstBlockCacheConfig(threshold=threshold)

    return theirs(f"FirstBlockCache {threshold:g}", "FirstBlockCache", config)


def taylorseer(interval, is_lite=False):
    """is_lite: predict the output, not what each module adds. Its own names of modules match nothing in Wan."""

    def config(pipe, steps):
        import torch
        from diffusers import TaylorSeerCacheConfig

        parts = {"use_lite_mode": True} if is_lite else {"cache_identifiers": [r"blocks\.\d+\.(attn1|attn2|ffn)"]}
        return TaylorSeerCacheConfig(cache_interval=interval, taylor_factors_dtype=torch.float32, **parts)

    name = "TaylorSeer lite" if is_lite else "TaylorSeer"
    return theirs(f"{name} {interval}", name, config)


def pab(skip):
    def config(pipe, steps):
        from diffusers import PyramidAttentionBroadcastConfig

        return PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=skip,
            cross_attention_block_skip_range=skip + 2,
            spatial_attention_timestep_skip_range=(100, 950),
            cross_attention_timestep_skip_range=(100, 950),
            current_timestep_callback=lambda: pipe.current_timestep,
        )

    return theirs(f"PAB {skip}", "PAB", config)


def faster(skip):
    def config(pipe, steps):
        from diffusers import FasterCacheConfig

        return FasterCacheConfig(
            spatial_attention_block_skip_range=skip,
            spatial_attention_timestep_skip_range=(-1, 950),
            unconditional_batch_skip_range=5,
            unconditional_batch_timestep_skip_range=(-1, 950),
            attention_weight_callback=lambda module: 0.3,
            tensor_format="BCFHW",
            current_timestep_callback=lambda: pipe.current_timestep,
        )

    return theirs(f"FasterCache {skip}", "FasterCache", config)


def magcache(threshold, skips=5):
    def config(pipe, steps):
        from diffusers import MagCacheConfig

        return MagCacheConfig(
            threshold=threshold, max_skip_steps=skips, num_inference_steps=steps, mag_ratios=pipe.mag_ratios
        )

    return theirs(f"MagCache {threshold:g}", "MagCache", config)


def calibrate_magcache(pipe, sample, steps):
    """Set `pipe.mag_ratios` by MagCache's own calibration, on the clip that sample() makes. It only logs them."""
    from diffusers import MagCacheConfig

    lines = []

    class Listener(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    listener, log = Listener(), logging.getLogger("diffusers.hooks.mag_cache")
    level, disabled = log.level, logging.root.manager.disable
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    pipe.transformer.enable_cache(MagCacheConfig(calibrate=True, num_inference_steps=steps))
    try:
        sample()
    finally:
        pipe.transformer.disable_cache()
        log.removeHandler(listener)
        log.setLevel(level)
        logging.disable(disabled)
    found = [re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text) for text in lines]
    longest = max(found, key=len, default=[])
    if len(longest) < steps - 1:
        raise RuntimeError("MagCache's calibration logged no ratios")
    pipe.mag_ratios = [float(number) for number in longest]


def sea(threshold):
    def config(pipe, steps):
        from diffusers import SeaCacheConfig

        return SeaCacheConfig(threshold=threshold, max_consecutive_cached=5)

    return theirs(f"SeaCache {threshold:g}", "SeaCache", config)


PRESETS = [ours(name, OURS if name != "flash" else name, preset=name) for name in ("base", "turbo", "flash")]

# each family's settings, from exact to fast
METHODS = [
    *PRESETS,
    *(ours(f"budget {share:g}", preset="budget", share=share) for share in (0.2, 0.3, 0.4, 0.5, 0.65, 0.8)),
    *map(first_block, (0.05, 0.07, 0.1, 0.2, 0.4)),
    *map(taylorseer, (2, 3, 5)),
    *(taylorseer(interval, is_lite=True) for interval in (2, 3, 4, 6)),
    *map(magcache, (0.02, 0.04, 0.08, 0.16, 0.32)),
    *map(sea, (0.07, 0.12, 0.2, 0.4, 0.6, 0.9)),
    *map(pab, (2, 3, 5)),
    *map(faster, (2, 4)),
]
