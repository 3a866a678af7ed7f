"""What most templates share: loaders, the cache with its statistics, and the video at the end."""

from tools.templates.form.graph import file

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的"
    "画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
WAN21 = "Comfy-Org/Wan_2.1_ComfyUI_repackaged"
WAN22 = "Comfy-Org/Wan_2.2_ComfyUI_Repackaged"
UMT5 = file(WAN21, "text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
WAN_VAE = file(WAN21, "vae", "wan_2.1_vae.safetensors")
CLIP_VISION_H = file(WAN21, "clip_vision", "clip_vision_h.safetensors")

FOX = "a red fox runs through deep snow between fir trees, powder flying up, low sun, the camera follows"
BOAT = "a sailing boat crosses a calm bay at dawn, mist over the water, gulls in the distance, slow aerial shot"
FLOWER = "a glass flower opens slowly, light runs through its petals"
HEAD = "the subject of the picture turns its head slowly and looks into the camera, the light changes softly"

LOADERS, PICTURES, PROMPT, CACHE, SAMPLING, STATISTICS, VIDEO = (
    "Models", "Pictures", "Prompt and size", "PreciseCache", "Sampling", "Statistics", "Video",
)  # fmt: skip
COLUMNS = [(LOADERS,), (PROMPT,), (SAMPLING, CACHE), (STATISTICS,), (VIDEO,)]
WITH_PICTURES = [(LOADERS,), (PICTURES,), (PROMPT,), (SAMPLING, CACHE), (STATISTICS, VIDEO)]
WIDE = [(LOADERS,), (PROMPT,), (CACHE,), (SAMPLING,), (STATISTICS,), (VIDEO,)]  # where sampling takes many nodes


def unet(graph, model, title=None):
    return graph.add("UNETLoader", LOADERS, title, [model], unet_name=model["name"])[0]


def clip(graph, text_encoder, kind):
    return graph.add("CLIPLoader", LOADERS, files=[text_encoder], clip_name=text_encoder["name"], type=kind)[0]


def dual_clip(graph, first, second, kind):
    names = {"clip_name1": first["name"], "clip_name2": second["name"]}
    return graph.add("DualCLIPLoader", LOADERS, files=[first, second], type=kind, **names)[0]


def vae(graph, model, column=LOADERS):
    return graph.add("VAELoader", column, files=[model], vae_name=model["name"])[0]


def picture(graph, title="Start image", column=LOADERS):
    return graph.add("LoadImage", column, title, image="example.png")[0]


def vision(graph, model):
    return graph.add("CLIPVisionLoader", LOADERS, files=[model], clip_name=model["name"])[0]


def seen(graph, vision, image, crop, title=None):
    """What CLIP Vision says of an image."""
    return graph.add("CLIPVisionEncode", PROMPT, title, clip_vision=vision, image=image, crop=crop)[0]


def prompt(graph, clip, text, title="Positive prompt"):
    return graph.add("CLIPTextEncode", PROMPT, title, clip=clip, text=text)[0]


def empty_latent(graph, width, height, length, column=PROMPT):
    """The latent that Wan2.1, Wan2.2 14B, HunyuanVideo and the bundled model start from."""
    size = {"width": width, "height": height, "length": length, "batch_size": 1}
    return graph.add("EmptyHunyuanLatentVideo", column, "Empty video latent", **size)[0]


def cached(graph, model, shift, title=None, **lfcache):
    """The model with its shift, and LFCache behind it."""
    shifted = graph.add("ModelSamplingSD3", CACHE, model=model, shift=shift)[0]
    return graph.add("PreciseCacheLFCache", CACHE, title, model=shifted, **lfcache)[0]


def custom_sampler(graph, column, model, seed, steps, sampler="euler"):
    """The inputs of SamplerCustomAdvanced that samplers may share: noise, sampler and sigmas."""
    return {
        "noise": graph.add("RandomNoise", column, noise_seed=seed)[0],
        "sampler": graph.add("KSamplerSelect", column, sampler_name=sampler)[0],
        "sigmas": graph.add("BasicScheduler", column, model=model, scheduler="simple", steps=steps, denoise=1)[0],
    }


def with_statistics(graph, model, samples, title=None, has_plot=True):
    """Cache Stats behind a sampler, with its plot; returns the samples."""
    stats = graph.add("PreciseCacheStats", STATISTICS, title, model=model, samples=samples)
    if has_plot:
        graph.add("PreviewImage", STATISTICS, "Plot", images=stats[2])
    return stats[0]


def video(graph, samples, vae, fps, tiled=None):
    """Decode and save. tiled: the inputs of VAE Decode (Tiled), where the template needs it."""
    kind = "VAEDecodeTiled" if tiled else "VAEDecode"
    images = graph.add(kind, VIDEO, samples=samples, vae=vae, **(tiled or {}))[0]
    save(graph, images, fps, "video/precisecache")


def save(graph, images, fps, prefix, columns=(VIDEO, VIDEO)):
    """columns: where Create Video and Save Video stand."""
    made = graph.add("CreateVideo", columns[0], images=images, fps=fps)[0]
    chosen = {"format": "auto", "format__codec": "auto", "codec": "auto"}
    graph.add("SaveVideo", columns[1], video=made, filename_prefix=prefix, **chosen)
