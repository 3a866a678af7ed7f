"""Wan2.1: text to video, image to video, VACE, first and last frame."""

from tools.templates.form.graph import Graph, file
from tools.templates.recipes import notes, parts
from tools.templates.recipes.parts import CLIP_VISION_H, NEGATIVE, PROMPT, SAMPLING, UMT5, WAN21, WAN_VAE

SAMPLER = {"sampler_name": "uni_pc", "scheduler": "simple", "cfg": 6}


def model_file(name):
    return file(WAN21, "diffusion_models", f"{name}.safetensors")


def _loaders(graph, model):
    return parts.unet(graph, model), parts.clip(graph, UMT5, "wan"), parts.vae(graph, WAN_VAE)


def _prompts(graph, clip, text):
    return parts.prompt(graph, clip, text), parts.prompt(graph, clip, NEGATIVE, "Negative prompt")


def _sample(graph, model, positive, negative, latent, has_plot=True, **sampler):
    sampler = {"positive": positive, "negative": negative, "latent_image": latent, **SAMPLER, **sampler}
    samples = graph.add("KSampler", SAMPLING, model=model, **sampler)[0]
    return parts.with_statistics(graph, model, samples, has_plot=has_plot)


def t2v():
    model = model_file("wan2.1_t2v_1.3B_fp16")
    about = notes.about(
        "Wan2.1 text to video, 1.3B, as in ComfyUI's own template.",
        [model, UMT5, WAN_VAE],
        notes.FP16_1B,
        notes.SAVING["11 of 30"],
    )
    graph = Graph("wan2.1_t2v_precisecache", ("Wan2.1 1.3B", "text to video"), about, notes.USAGE, parts.COLUMNS)
    unet, clip, vae = _loaders(graph, model)
    positive, negative = _prompts(graph, clip, parts.FOX)
    latent = parts.empty_latent(graph, 832, 480, 33)
    model = parts.cached(graph, unet, 8)
    samples = _sample(graph, model, positive, negative, latent, seed=82628696717253, steps=30)
    parts.video(graph, samples, vae, 16)
    return graph


def i2v():
    model = model_file("wan2.1_i2v_480p_14B_fp16")
    about = notes.about(
        "Wan2.1 image to video, 14B 480p, as in ComfyUI's own template.",
        [model, UMT5, WAN_VAE, CLIP_VISION_H],
        notes.FP16_14B,
        notes.PICTURE,
        notes.SAVING["10 of 20"],
    )
    graph = Graph("wan2.1_i2v_precisecache", ("Wan2.1 14B", "image to video"), about, notes.USAGE, parts.COLUMNS)
    unet, clip, vae = _loaders(graph, model)
    vision = parts.vision(graph, CLIP_VISION_H)
    image = parts.picture(graph)
    positive, negative = _prompts(graph, clip, parts.HEAD)
    look = parts.seen(graph, vision, image, "none")
    video = graph.add(
        "WanImageToVideo", PROMPT, positive=positive, negative=negative, vae=vae, clip_vision_output=look,
        start_image=image, width=512, height=512, length=33,
    )  # fmt: skip
    model = parts.cached(graph, unet, 8)
    samples = _sample(graph, model, video[0], video[1], video[2], seed=987948718394761, steps=20)
    parts.video(graph, samples, vae, 16)
    return graph


def vace():
    model = model_file("wan2.1_vace_14B_fp16")
    about = notes.about(
        "Wan2.1 VACE, 14B: a video with the subject of your picture, as in ComfyUI's own template, but without its "
        "few-step LoRA.",
        [model, UMT5, WAN_VAE],
        notes.FP16_14B,
        "Choose your picture in *Reference image*: the subject, on a plain ground. A video to follow goes into "
        "*control_video*.",
        notes.SAVING["10 of 20"],
    )
    graph = Graph(
        "wan2.1_vace_precisecache", ("Wan2.1 VACE 14B", "reference to video"), about, notes.USAGE, parts.COLUMNS
    )
    unet, clip, vae = _loaders(graph, model)
    image = parts.picture(graph, "Reference image")
    positive, negative = _prompts(graph, clip, parts.HEAD)
    video = graph.add(
        "WanVaceToVideo", PROMPT, positive=positive, negative=negative, vae=vae, reference_image=image,
        width=768, height=768, length=81,
    )  # fmt: skip
    model = parts.cached(graph, unet, 8)
    samples = _sample(graph, model, video[0], video[1], video[2], seed=552837504311715, steps=20)
    trimmed = graph.add("TrimVideoLatent", parts.VIDEO, samples=samples, trim_amount=video[3])[0]
    parts.video(graph, trimmed, vae, 16)
    return graph


def flf2v():
    model = model_file("wan2.1_flf2v_720p_14B_fp16")
    about = notes.about(
        "Wan2.1 from a first to a last frame, 14B 720p, as in ComfyUI's own template.",
        [model, UMT5, WAN_VAE, CLIP_VISION_H],
        notes.FP16_14B,
        "Choose your pictures in *Start image* and *End image*.",
        notes.SAVING["10 of 20"],
    )
    graph = Graph(
        "wan2.1_flf2v_precisecache",
        ("Wan2.1 14B", "first and last frame to video"),
        about,
        notes.USAGE,
        parts.WITH_PICTURES,
    )
    unet, clip, vae = _loaders(graph, model)
    vision = parts.vision(graph, CLIP_VISION_H)
    first = parts.picture(graph, column=parts.PICTURES)
    last = parts.picture(graph, "End image", parts.PICTURES)
    positive, negative = _prompts(graph, clip, parts.FLOWER)
    looks = {
        "clip_vision_start_image": parts.seen(graph, vision, first, "none"),
        "clip_vision_end_image": parts.seen(graph, vision, last, "none"),
    }
    video = graph.add(
        "WanFirstLastFrameToVideo", PROMPT, positive=positive, negative=negative, vae=vae, start_image=first,
        end_image=last, width=720, height=1280, length=33, **looks,
    )  # fmt: skip
    model = parts.cached(graph, unet, 8)
    samples = _sample(
        graph, model, video[0], video[1], video[2], seed=1012535162155917, steps=20, cfg=3, has_plot=False
    )
    parts.video(graph, samples, vae, 16)
    return graph
