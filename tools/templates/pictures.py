"""The pictures of the template browser: a frame without and with LFCache, and how many steps it computed.

The frames and the numbers are of the bundled small model, sampled here with as many steps as the template has.
"""

import torch

from precisecache_core import LFCacheConfig, flow_sigmas, guided, sample_flow
from precisecache_core.lettering import font
from precisecache_core.tiny import bundle
from precisecache_core.tiny.codec import CHANNELS
from precisecache_core.tiny.prompts import COLORS, MOTIONS, SUBJECTS, encode_prompt

SIZE = 640
FRAME = 300
GROUND, TEXT, DIM = "#1e1f26", "white", "#b8bac6"
LATENT = (4, 24, 24)


def steps_of(graph):
    """How many steps a graph samples: the most of its samplers and schedulers."""
    return max(node.inputs["steps"] for node in graph.nodes if "steps" in node.inputs)


def draw(graph, number):
    """The picture of a graph. number: chooses the prompt. Returns a Pillow image of SIZE x SIZE."""
    from PIL import Image, ImageDraw

    preset = next(n.inputs.get("preset", "base") for n in graph.nodes if _is_lfcache(n))
    frames, report = _frames(steps_of(graph), preset, number)
    picture = Image.new("RGB", (SIZE, SIZE), GROUND)
    pen = ImageDraw.Draw(picture)
    for i, frame in enumerate(frames):
        x = 13 + i * (FRAME + 14)
        picture.paste(Image.fromarray(frame).resize((FRAME, FRAME), Image.Resampling.BICUBIC), (x, 48))
        pen.text((x, 14), ("uncached", "PreciseCache")[i], fill=DIM, font=font("a", 24))
    number_text = f"computes {report['computed']} of {report['calls']} steps"
    pen.text((13, 380), number_text, fill="#e69f00", font=font("a", 52))
    heading, line = graph.picture
    pen.text((13, 474), heading, fill=TEXT, font=font("a", 48))
    pen.text((13, 538), line, fill=DIM, font=font("a", 28))
    pen.text((13, 608), "frames and number: the bundled small model", fill="#7d7f8c", font=font("a", 18))
    return picture


def _is_lfcache(node):
    return node.kind in ("PreciseCacheLFCache", "PreciseCacheLFCacheRay") and node.inputs.get("preset") != "off"


def _frames(steps, preset, number):
    """The middle frame without and with LFCache, (H, W, 3) uint8 each, and LFCache's report."""
    network, codec = bundle.load_model(), bundle.load_codec()
    words = [names[number % len(names)] for names in (SUBJECTS, COLORS, MOTIONS)]
    denoise = guided(network, encode_prompt(*words), encode_prompt(), 4.0)
    noise = torch.randn(1, CHANNELS, *LATENT, generator=torch.Generator().manual_seed(number))
    frames, report = [], None
    for config in (None, LFCacheConfig.from_preset(preset, share=0.4)):
        latent, report = sample_flow(denoise, noise, flow_sigmas(steps, bundle.SHIFT), config, model_name="small model")
        video = codec.decode(latent)[0].permute(1, 2, 3, 0)
        frames.append((video[len(video) // 2].clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    return frames, report
