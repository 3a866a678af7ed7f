"""The same noise without a cache, with LFCache and with EasyCache, side by side."""

from tools.templates.form.graph import Graph, file
from tools.templates.recipes import notes, parts
from tools.templates.recipes.hunyuan_video import CLIP_L, LLAVA, REPOSITORY, VAE
from tools.templates.recipes.parts import CACHE, LOADERS, PROMPT, SAMPLING, STATISTICS, UMT5, WAN22, WIDE

RESULT = "Comparison"
COLUMNS = [*WIDE[:5], (RESULT,)]
COUNTER = "LFCache off (counts and times)"  # its report has the calls and seconds of a model without LFCache


def _compare(graph, model, guide, shared, latent, vae, fps, prefix, **lfcache):
    """Everything behind the model. guide: makes the guider of a model and a title. shared: see parts.custom_sampler."""
    counted = graph.add("PreciseCacheLFCache", CACHE, COUNTER, is_collapsed=True, model=model, preset="off")[0]
    cached = graph.add("PreciseCacheLFCache", CACHE, model=model, **lfcache)[0]
    easy = graph.add("EasyCache", CACHE, model=model)[0]
    easy = graph.add("PreciseCacheLFCache", CACHE, COUNTER, is_collapsed=True, model=easy, preset="off")[0]
    models = {"uncached": counted, "LFCache": cached, "EasyCache": easy}
    samples = {
        name: graph.add(
            "SamplerCustomAdvanced", SAMPLING, f"Sampler, {name}", guider=guide(model, f"Guider, {name}"),
            latent_image=latent, **shared,
        )[0]
        for name, model in models.items()
    }  # fmt: skip
    stats = {
        name: graph.add(
            "PreciseCacheStats", STATISTICS, f"Cache Stats, {name}", is_collapsed=name != "LFCache",
            model=models[name], samples=samples[name],
        )
        for name in models
    }  # fmt: skip
    images = {
        name: graph.add(
            "VAEDecode", STATISTICS, f"VAE Decode, {name}", is_collapsed=True, samples=stats[name][0], vae=vae
        )[0]
        for name in models
    }
    places = dict(zip(("reference", "first", "second"), models))
    inputs = {place: images[name] for place, name in places.items()}
    inputs |= {f"{place}_report": stats[name][1] for place, name in places.items()}
    compared = graph.add("PreciseCacheCompare", RESULT, **inputs)
    graph.add("PreviewAny", RESULT, "Quality and speed", source=compared[1])
    parts.save(graph, compared[0], fps, prefix, (STATISTICS, RESULT))


def tiny():
    about = [
        notes.COMPARED,
        "Runs on a laptop's CPU without a download: a small video model comes with PreciseCache.",
        "LFCache is set to *budget* with a share of 0.4, about what EasyCache computes here.",
        notes.COST,
    ]
    columns = [("Model and size", LOADERS), *COLUMNS[2:]]
    graph = Graph(
        "precisecache_compare", ("Compare", "uncached, LFCache, EasyCache; on a CPU"), about, notes.USAGE, columns
    )
    model = graph.add("PreciseCacheTinyModel", LOADERS, subject="triangle", color="orange", motion="right")
    latent = parts.empty_latent(graph, 256, 256, 13, LOADERS)
    shared = parts.custom_sampler(graph, LOADERS, model[0], 0, 50)

    def guide(cached, title):
        return graph.add("CFGGuider", SAMPLING, title, model=cached, positive=model[1], negative=model[2], cfg=4)[0]

    _compare(
        graph, model[0], guide, shared, latent, model[3], 8, "video/precisecache_compare",
        preset="budget", alpha=0.2, share=0.4,
    )  # fmt: skip
    return graph


def wan22():
    unet = file(WAN22, "diffusion_models", "wan2.2_ti2v_5B_fp16.safetensors")
    vae = file(WAN22, "vae", "wan2.2_vae.safetensors")
    about = notes.about(
        notes.COMPARED,
        [unet, UMT5, vae],
        notes.FP16_5B,
        "Wan2.2 text to video, 5B, for a GPU.",
        notes.COST,
        notes.SHARE,
    )
    graph = Graph(
        "wan2.2_compare", ("Compare on Wan2.2 5B", "uncached, LFCache, EasyCache"), about, notes.USAGE, COLUMNS
    )
    model = parts.unet(graph, unet)
    clip, vae = parts.clip(graph, UMT5, "wan"), parts.vae(graph, vae)
    model = graph.add("ModelSamplingSD3", LOADERS, model=model, shift=8)[0]
    positive = parts.prompt(graph, clip, parts.FOX)
    negative = parts.prompt(graph, clip, parts.NEGATIVE, "Negative prompt")
    latent = graph.add("Wan22ImageToVideoLatent", PROMPT, vae=vae, width=1280, height=704, length=121)[0]
    shared = parts.custom_sampler(graph, PROMPT, model, 898471028164125, 20, "uni_pc")

    def guide(cached, title):
        return graph.add("CFGGuider", SAMPLING, title, model=cached, positive=positive, negative=negative, cfg=5)[0]

    _compare(graph, model, guide, shared, latent, vae, 24, "video/wan2.2_compare")
    return graph


def hunyuan():
    unet = file(REPOSITORY, "diffusion_models", "hunyuan_video_t2v_720p_bf16.safetensors")
    about = notes.about(
        notes.COMPARED, [unet, CLIP_L, LLAVA, VAE], notes.BF16_13B, "HunyuanVideo text to video, for a GPU.",
        notes.COST,         notes.SHARE,
    )  # fmt: skip
    graph = Graph(
        "hunyuan_compare", ("Compare on HunyuanVideo", "uncached, LFCache, EasyCache"), about, notes.USAGE, COLUMNS
    )
    model = parts.unet(graph, unet)
    clip, vae = parts.dual_clip(graph, CLIP_L, LLAVA, "hunyuan_video"), parts.vae(graph, VAE)
    model = graph.add("ModelSamplingSD3", LOADERS, model=model, shift=7)[0]
    prompt = parts.prompt(graph, clip, parts.BOAT, "Prompt")
    guided = graph.add("FluxGuidance", PROMPT, conditioning=prompt, guidance=6)[0]
    latent = parts.empty_latent(graph, 848, 480, 73)
    shared = parts.custom_sampler(graph, PROMPT, model, 1, 20)

    def guide(cached, title):
        return graph.add("BasicGuider", SAMPLING, title, model=cached, conditioning=guided)[0]

    _compare(graph, model, guide, shared, latent, vae, 24, "video/hunyuan_compare")
    return graph
