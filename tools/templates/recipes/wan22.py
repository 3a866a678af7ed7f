"""Wan2.2: 14B with both experts, and 5B."""

from tools.templates.form.graph import Graph, file
from tools.templates.recipes import notes, parts
from tools.templates.recipes.parts import NEGATIVE, PROMPT, SAMPLING, UMT5, WAN22, WAN_VAE

STEPS, SWITCH = 20, 10  # of the schedule, and where the low-noise expert takes over


def _expert(task, noise):
    return file(WAN22, "diffusion_models", f"wan2.2_{task}_{noise}_noise_14B_fp8_scaled.safetensors")


def _loaders(graph, task):
    high = parts.unet(graph, _expert(task, "high"), "High-noise expert")
    low = parts.unet(graph, _expert(task, "low"), "Low-noise expert")
    return high, low, parts.clip(graph, UMT5, "wan"), parts.vae(graph, WAN_VAE)


def _sample_with_both(graph, high, low, positive, negative, latent, seed):
    """Both experts, one after the other, each with its cache and statistics; returns the samples."""
    high = parts.cached(graph, high, 5, "LFCache, high noise")
    low = parts.cached(graph, low, 5, "LFCache, low noise", calibrate_from=high)
    common = {
        "steps": STEPS, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "positive": positive,
        "negative": negative,
    }  # fmt: skip
    samples = graph.add(
        "KSamplerAdvanced", SAMPLING, "Sampler, high noise", model=high, latent_image=latent, add_noise="enable",
        noise_seed=seed, start_at_step=0, end_at_step=SWITCH, return_with_leftover_noise="enable", **common,
    )[0]  # fmt: skip
    samples = parts.with_statistics(graph, high, samples, "Cache Stats, high noise", has_plot=False)
    samples = graph.add(
        "KSamplerAdvanced", SAMPLING, "Sampler, low noise", model=low, latent_image=samples, add_noise="disable",
        noise_seed=0, start_at_step=SWITCH, end_at_step=STEPS, return_with_leftover_noise="disable", **common,
    )[0]  # fmt: skip
    return parts.with_statistics(graph, low, samples, "Cache Stats, low noise", has_plot=False)


def t2v_14b():
    about = notes.about(
        "Wan2.2 text to video, 14B, both experts with all their steps, as in ComfyUI's own template.",
        [_expert("t2v", "high"), _expert("t2v", "low"), UMT5, WAN_VAE],
        notes.TWO_EXPERTS,
        notes.EXPERTS,
        notes.SAVING["10 of 20"],
    )
    graph = Graph(
        "wan2.2_t2v_14B_precisecache", ("Wan2.2 14B", "text to video, both experts"), about, notes.USAGE, parts.WIDE
    )
    high, low, clip, vae = _loaders(graph, "t2v")
    positive = parts.prompt(graph, clip, parts.FOX)
    negative = parts.prompt(graph, clip, f"{NEGATIVE}，裸露，NSFW", "Negative prompt")
    latent = parts.empty_latent(graph, 640, 640, 81)
    samples = _sample_with_both(graph, high, low, positive, negative, latent, 923510416338945)
    parts.video(graph, samples, vae, 16)
    return graph


def i2v_14b():
    about = notes.about(
        "Wan2.2 image to video, 14B, both experts with all their steps, as in ComfyUI's own template.",
        [_expert("i2v", "high"), _expert("i2v", "low"), UMT5, WAN_VAE],
        notes.TWO_EXPERTS,
        notes.PICTURE,
        notes.EXPERTS,
        notes.SAVING["10 of 20"],
    )
    graph = Graph(
        "wan2.2_i2v_14B_precisecache", ("Wan2.2 14B", "image to video, both experts"), about, notes.USAGE, parts.WIDE
    )
    high, low, clip, vae = _loaders(graph, "i2v")
    image = parts.picture(graph)
    positive = parts.prompt(graph, clip, parts.HEAD)
    negative = parts.prompt(graph, clip, NEGATIVE, "Negative prompt")
    video = graph.add(
        "WanImageToVideo", PROMPT, positive=positive, negative=negative, vae=vae, start_image=image,
        width=640, height=640, length=81,
    )  # fmt: skip
    samples = _sample_with_both(graph, high, low, video[0], video[1], video[2], 264244520398999)
    parts.video(graph, samples, vae, 16)
    return graph


MODEL_5B = file(WAN22, "diffusion_models", "wan2.2_ti2v_5B_fp16.safetensors")
VAE_5B = file(WAN22, "vae", "wan2.2_vae.safetensors")


def _5b(name, text, has_image, about):
    kind = "image to video" if has_image else "text to video"
    graph = Graph(name, ("Wan2.2 5B", kind), about, notes.USAGE, parts.COLUMNS)
    unet = parts.unet(graph, MODEL_5B)
    clip, vae = parts.clip(graph, UMT5, "wan"), parts.vae(graph, VAE_5B)
    image = {"start_image": parts.picture(graph)} if has_image else {}
    positive = parts.prompt(graph, clip, text)
    negative = parts.prompt(graph, clip, NEGATIVE, "Negative prompt")
    latent = graph.add("Wan22ImageToVideoLatent", PROMPT, vae=vae, width=1280, height=704, length=121, **image)[0]
    model = parts.cached(graph, unet, 8)
    samples = graph.add(
        "KSampler", SAMPLING, model=model, positive=positive, negative=negative, latent_image=latent,
        seed=898471028164125, steps=20, cfg=5, sampler_name="uni_pc", scheduler="simple",
    )[0]  # fmt: skip
    parts.video(graph, parts.with_statistics(graph, model, samples), vae, 24)
    return graph


def t2v_5b():
    about = notes.about(
        "Wan2.2 text to video, 5B, as in ComfyUI's own template.",
        [MODEL_5B, UMT5, VAE_5B],
        notes.FP16_5B,
        notes.SAVING["10 of 20"],
    )
    return _5b("wan2.2_t2v_5B_precisecache", parts.FOX, False, about)


def i2v_5b():
    about = notes.about(
        "Wan2.2 image to video, 5B, as in ComfyUI's own template.",
        [MODEL_5B, UMT5, VAE_5B],
        notes.FP16_5B,
        notes.PICTURE,
        "From a start image this model is cached without trials: LFCache goes by the steps that it computed.",
        notes.SAVING["10 of 20"],
    )
    return _5b("wan2.2_i2v_5B_precisecache", parts.HEAD, True, about)
