"""The demo in ComfyUI: the shipped API graph, with and without its caching nodes."""

import io
import json

import numpy as np
from PIL import Image, ImageSequence

from precisecache_core.tiny.codec import CELL
from tools.graph.shipped import bypass, load_flash, load_step_cache, only_node, set_inputs

from .variants import Take

PIXELS = 2 * CELL  # width of a latent position in pixels


class HostedDemo:
    """Samples the variants through a ComfyClient."""

    def __init__(self, client, options):
        self.client = client
        frames, height, width = options.size
        self.preset = options.preset
        self.inputs = {
            "PreciseCacheTinyModel": dict(subject=options.subject, color=options.color, motion=options.motion),
            "KSampler": dict(seed=options.seed),
            "EmptyHunyuanLatentVideo": dict(
                width=PIXELS * width, height=PIXELS * height, length=CELL * (frames - 1) + 1
            ),
        }

    async def sample(self, variant, steps, on_step):
        graph = load_flash() if variant.blockcache else load_step_cache()
        for class_type, inputs in self.inputs.items():
            set_inputs(graph, class_type, **inputs)
        set_inputs(graph, "KSampler", steps=steps)
        if variant.lfcache:
            set_inputs(graph, "PreciseCacheLFCache", preset=variant.preset or self.preset)
        else:
            bypass(graph, "PreciseCacheLFCache")
        sampler = only_node(graph, "KSampler")
        self.client.on_event = lambda text: tell_steps(json.loads(text), sampler, on_step)
        outputs, seconds = await self.client.run(graph, sampler)
        saved = outputs[only_node(graph, "SaveAnimatedWEBP")]["images"][0]
        runs = outputs[only_node(graph, "PreciseCacheStats")]["precisecache"][0]["runs"]
        fps = graph[only_node(graph, "SaveAnimatedWEBP")]["inputs"]["fps"]
        return Take(read_frames(await self.client.file(saved), fps), seconds, runs[-1] if runs else None)


def tell_steps(event, sampler, on_step):
    """Call on_step(steps done, of how many) if ComfyUI's event is the progress of that node."""
    data = event.get("data") or {}
    if event["type"] == "progress" and data.get("node") == sampler and data.get("max"):
        on_step(data["value"], data["max"])


def read_frames(data, fps):
    """An animated WebP as (frames, height, width, 3) uint8; equal neighbours, which it stores once, are repeated."""
    frames = []
    with Image.open(io.BytesIO(data)) as image:
        for frame in ImageSequence.Iterator(image):
            pixels = np.asarray(frame.convert("RGB"))
            repeats = max(1, round(frame.info.get("duration", 0) * fps / 1000))
            frames += [pixels] * repeats
    return np.stack(frames)
