"""HunyuanVideo and HunyuanVideo 1.5: text to video and image to video."""

from tools.templates.form.graph import Graph, file
from tools.templates.recipes import notes, parts
from tools.templates.recipes.parts import PROMPT, SAMPLING

REPOSITORY = "Comfy-Org/HunyuanVideo_repackaged"
LLAVA = file(REPOSITORY, "text_encoders", "llava_llama3_fp8_scaled.safetensors")
LLAVA_VISION = file(REPOSITORY, "clip_vision", "llava_llama3_vision.safetensors")
VAE = file(REPOSITORY, "vae", "hunyuan_video_vae_bf16.safetensors")
CLIP_L = {
    "name": "clip_l.safetensors",
    "directory": "text_encoders",
    "url": "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors",
}
TILED = {"tile_size": 256, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}

REPOSITORY_15 = "Comfy-Org/HunyuanVideo_1.5_repackaged"
QWEN = file(REPOSITORY_15, "text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors")
BYT5 = file(REPOSITORY_15, "text_encoders", "byt5_small_glyphxl_fp16.safetensors")
VAE_15 = file(REPOSITORY_15, "vae", "hunyuanvideo15_vae_fp16.safetensors")
SIGLIP = {
    "name": "sigclip_vision_patch14_384.safetensors",
    "directory": "clip_vision",
    "url": "https://huggingface.co/Comfy-Org/sigclip_vision_384/resolve/main/sigclip_vision_patch14_384.safetensors",
}


def model_file(repository, name):
    return file(repository, "diffusion_models", f"{name}.safetensors")


def sample(graph, model, guider, latent, seed):
    """Sample with ComfyUI's custom sampler, as its HunyuanVideo templates do; returns the samples."""
    shared = parts.custom_sampler(graph, SAMPLING, model, seed, 20)
    return graph.add("SamplerCustomAdvanced", SAMPLING, guider=guider, latent_image=latent, **shared)[0]


def t2v():
    model = model_file(REPOSITORY, "hunyuan_video_t2v_720p_bf16")
    about = notes.about(
        "HunyuanVideo text to video, as in ComfyUI's own template.",
        [model, CLIP_L, LLAVA, VAE],
        notes.BF16_13B,
        notes.SAVING["10 of 20"],
    )
    graph = Graph("hunyuan_video_t2v_precisecache", ("HunyuanVideo", "text to video"), about, notes.USAGE, parts.WIDE)
    unet = parts.unet(graph, model)
    clip, vae = parts.dual_clip(graph, CLIP_L, LLAVA, "hunyuan_video"), parts.vae(graph, VAE)
    prompt = parts.prompt(graph, clip, parts.BOAT, "Prompt")
    guided = graph.add("FluxGuidance", PROMPT, conditioning=prompt, guidance=6)[0]
    latent = parts.empty_latent(graph, 848, 480, 73)
    model = parts.cached(graph, unet, 7)
    guider = graph.add("BasicGuider", SAMPLING, model=model, conditioning=guided)[0]
    samples = sample(graph, model, guider, latent, 1)
    parts.video(graph, parts.with_statistics(graph, model, samples), vae, 24, TILED)
    return graph


def i2v():
    model = model_file(REPOSITORY, "hunyuan_video_image_to_video_720p_bf16")
    about = notes.about(
        "HunyuanVideo image to video, with its first guidance type, *v1 (concat)*. With *v2 (replace)* LFCache works "
        "without trials.",
        [model, CLIP_L, LLAVA, LLAVA_VISION, VAE],
        notes.BF16_13B,
        notes.PICTURE,
        notes.SAVING["10 of 20"],
    )
    graph = Graph("hunyuan_video_i2v_precisecache", ("HunyuanVideo", "image to video"), about, notes.USAGE, parts.WIDE)
    unet = parts.unet(graph, model)
    clip, vae = parts.dual_clip(graph, CLIP_L, LLAVA, "hunyuan_video"), parts.vae(graph, VAE)
    vision = parts.vision(graph, LLAVA_VISION)
    image = parts.picture(graph)
    look = parts.seen(graph, vision, image, "none")
    prompt = graph.add(
        "TextEncodeHunyuanVideo_ImageToVideo", PROMPT, "Prompt", clip=clip, clip_vision_output=look, prompt=parts.HEAD,
        image_interleave=2,
    )[0]  # fmt: skip
    video = graph.add(
        "HunyuanImageToVideo", PROMPT, positive=prompt, vae=vae, start_image=image, width=720, height=720, length=53,
        guidance_type="v1 (concat)",
    )  # fmt: skip
    guided = graph.add("FluxGuidance", PROMPT, conditioning=video[0], guidance=6)[0]
    model = parts.cached(graph, unet, 7)
    guider = graph.add("BasicGuider", SAMPLING, model=model, conditioning=guided)[0]
    samples = sample(graph, model, guider, video[1], 1)
    parts.video(graph, parts.with_statistics(graph, model, samples), vae, 24, TILED)
    return graph


def _v15(name, about, model, text, has_image):
    kind = "image to video" if has_image else "text to video"
    graph = Graph(name, ("HunyuanVideo 1.5", kind), about, notes.USAGE, parts.WIDE)
    unet = parts.unet(graph, model)
    clip, vae = parts.dual_clip(graph, QWEN, BYT5, "hunyuan_video_15"), parts.vae(graph, VAE_15)
    size = {"width": 1280, "height": 720, "length": 121, "batch_size": 1}
    if has_image:
        vision = parts.vision(graph, SIGLIP)
        image = parts.picture(graph)
    positive, negative = parts.prompt(graph, clip, text), parts.prompt(graph, clip, "", "Negative prompt")
    if has_image:
        look = parts.seen(graph, vision, image, "center")
        video = graph.add(
            "HunyuanVideo15ImageToVideo", PROMPT, positive=positive, negative=negative, vae=vae, start_image=image,
            clip_vision_output=look, **size,
        )  # fmt: skip
        positive, negative, latent = video[0], video[1], video[2]
    else:
        latent = graph.add("EmptyHunyuanVideo15Latent", PROMPT, "Empty video latent", **size)[0]
    model = parts.cached(graph, unet, 7)
    guider = graph.add("CFGGuider", SAMPLING, model=model, positive=positive, negative=negative, cfg=6)[0]
    samples = sample(graph, model, guider, latent, 887963123424675)
    parts.video(graph, parts.with_statistics(graph, model, samples), vae, 24)
    return graph


def t2v_15():
    model = model_file(REPOSITORY_15, "hunyuanvideo1.5_720p_t2v_fp16")
    about = notes.about(
        "HunyuanVideo 1.5 text to video, 720p, as in ComfyUI's own template, without its upscaling.",
        [model, QWEN, BYT5, VAE_15],
        notes.FP16_8B,
        notes.SAVING["10 of 20"],
    )
    return _v15("hunyuan_video_1.5_t2v_precisecache", about, model, parts.BOAT, False)


def i2v_15():
    model = model_file(REPOSITORY_15, "hunyuanvideo1.5_720p_i2v_fp16")
    about = notes.about(
        "HunyuanVideo 1.5 image to video, 720p, as in ComfyUI's own template, without its upscaling.",
        [model, QWEN, BYT5, SIGLIP, VAE_15],
        notes.FP16_8B,
        notes.PICTURE,
        notes.SAVING["10 of 20"],
    )
    return _v15("hunyuan_video_1.5_i2v_precisecache", about, model, parts.HEAD, True)
