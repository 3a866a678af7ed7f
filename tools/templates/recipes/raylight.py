"""Wan2.1 and HunyuanVideo, text to video, on several GPUs with the custom nodes of Raylight."""

from tools.templates.form.graph import Graph
from tools.templates.recipes import hunyuan_video, notes, parts, wan21
from tools.templates.recipes.parts import CACHE, LOADERS, PROMPT, SAMPLING, STATISTICS, VIDEO

GPUS = "GPUs and models"
COLUMNS = [(GPUS, LOADERS), (PROMPT,), (SAMPLING, CACHE), (STATISTICS,), (VIDEO,)]
TWO_GPUS = {"GPU": 2, "ulysses_degree": 2, "ring_degree": 1, "cfg_degree": 1}


def _workers(graph, model):
    """Raylight's workers, one on each GPU, with the model."""
    started = graph.add("RayInitializer", GPUS, **TWO_GPUS)[0]
    return graph.add("RayUNETLoader", GPUS, files=[model], unet_name=model["name"], ray_actors_init=started)[0]


def _cached(graph, workers, shift):
    """The workers with the model's shift, and LFCache behind it."""
    shifted = graph.add("RayModelSamplingSD3", CACHE, ray_actors=workers, shift=shift)[0]
    return graph.add("PreciseCacheLFCacheRay", CACHE, ray_actors=shifted)[0]


def _sample(graph, workers, positive, negative, latent, **sampler):
    """Sample on all workers, with Cache Stats behind; returns the samples."""
    sampled = graph.add(
        "XFuserKSamplerAdvanced", SAMPLING, ray_actors=workers, positive=positive, negative=negative,
        latent_image=latent, **sampler,
    )  # fmt: skip
    stats = graph.add("PreciseCacheStatsRay", STATISTICS, ray_actors=sampled[1], samples=sampled[0])
    graph.add("PreviewImage", STATISTICS, "Plot", images=stats[2])
    return stats[0]


def wan21_t2v():
    model = wan21.model_file("wan2.1_t2v_1.3B_fp16")
    about = notes.about(
        "Wan2.1 text to video, 1.3B, on several GPUs.",
        [model, parts.UMT5, parts.WAN_VAE],
        notes.EVERY_GPU_1B,
        *notes.RAYLIGHT,
        notes.CFG_DEGREE,
        notes.SAVING["11 of 30"],
    )
    graph = Graph(
        "wan2.1_t2v_raylight_precisecache", ("Wan2.1 1.3B", "text to video, several GPUs (Raylight)"), about,
        notes.USAGE_RAYLIGHT, COLUMNS,
    )  # fmt: skip
    workers = _workers(graph, model)
    clip, vae = parts.clip(graph, parts.UMT5, "wan"), parts.vae(graph, parts.WAN_VAE, VIDEO)
    positive = parts.prompt(graph, clip, parts.FOX)
    negative = parts.prompt(graph, clip, parts.NEGATIVE, "Negative prompt")
    latent = parts.empty_latent(graph, 832, 480, 33)
    workers = _cached(graph, workers, 8)
    samples = _sample(graph, workers, positive, negative, latent, noise_seed=82628696717253, steps=30, **wan21.SAMPLER)
    parts.video(graph, samples, vae, 16)
    return graph


def hunyuan_t2v():
    model = hunyuan_video.model_file(hunyuan_video.REPOSITORY, "hunyuan_video_t2v_720p_bf16")
    about = notes.about(
        "HunyuanVideo text to video, on several GPUs.",
        [model, hunyuan_video.CLIP_L, hunyuan_video.LLAVA, hunyuan_video.VAE],
        notes.EVERY_GPU_13B,
        *notes.RAYLIGHT,
        notes.NO_CFG_DEGREE,
        notes.SAVING["10 of 20"],
    )
    graph = Graph(
        "hunyuan_video_raylight_precisecache", ("HunyuanVideo", "text to video, several GPUs (Raylight)"), about,
        notes.USAGE_RAYLIGHT, COLUMNS,
    )  # fmt: skip
    workers = _workers(graph, model)
    clip = parts.dual_clip(graph, hunyuan_video.CLIP_L, hunyuan_video.LLAVA, "hunyuan_video")
    vae = parts.vae(graph, hunyuan_video.VAE, VIDEO)
    prompt = parts.prompt(graph, clip, parts.BOAT, "Prompt")
    guided = graph.add("FluxGuidance", PROMPT, conditioning=prompt, guidance=6)[0]
    # cfg 1 computes no negative prompt, but the sampler must be given one
    negative = graph.add("ConditioningZeroOut", PROMPT, conditioning=prompt)[0]
    latent = parts.empty_latent(graph, 848, 480, 73)
    workers = _cached(graph, workers, 7)
    samples = _sample(
        graph, workers, guided, negative, latent, noise_seed=1, steps=20, cfg=1, sampler_name="euler",
        scheduler="simple",
    )  # fmt: skip
    parts.video(graph, samples, vae, 24, hunyuan_video.TILED)
    return graph
