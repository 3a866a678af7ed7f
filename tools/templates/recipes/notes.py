"""What the notes of the templates say, a paragraph each; locales/*/main.json has the translations."""

USAGE = [
    "**PreciseCache LFCache** sits last before the sampler, after LoRAs and ModelSampling. It computes some of the "
    "steps and estimates the others from those.",
    "- *base*: quality first. Start here.\n"
    "- *turbo*: faster, a little further from the uncached video.\n"
    "- *flash*: turbo, and BlockCache skips blocks. For drafts.\n"
    "- *budget*: your own share of the steps.\n"
    "- *off*: computes every step. Keep the seed to compare.",
    "**Cache Stats** says how much faster the run was, and why if nothing was reused.",
    "Leave few-step LoRAs (Lightning, lightx2v, CausVid) out: so few steps leave nothing to reuse.",
]
USAGE_RAYLIGHT = [
    "**PreciseCache LFCache (Ray)** sits last before the sampler, after ModelSampling. It computes some of the steps "
    "and estimates the others from those.",
    USAGE[1],
    "**Cache Stats (Ray)** says how much faster the run was, and why if nothing was reused.",
    USAGE[3],
]
RAYLIGHT = [
    "**Needs Raylight**: without it ComfyUI reports missing nodes and runs nothing. Install [Raylight]"
    "(https://github.com/komikndr/raylight) as a custom node, with xfuser 0.4.5: it fails with newer ones. It needs "
    "Linux and several GPUs in one machine.",
    "Set *GPU* in **Ray Init Actor** to the number of your GPUs. *ulysses_degree* x *ring_degree* x *cfg_degree* must "
    "be the same number: for 4 GPUs, set *ulysses_degree* to 4. Every GPU skips the same steps.",
    "*FSDP* divides the weights among the GPUs. Switch it on if the model does not fit one of them.",
]
CFG_DEGREE = "With *cfg_degree* 2, BlockCache skips nothing, so *flash* is the same as *turbo*."
NO_CFG_DEGREE = "Leave *cfg_degree* at 1: this model computes no negative prompt, so there is nothing to divide."
FILES = "**Model files**, by their folder in *models*:"
PICTURE = "Choose your picture in *Start image*."
SAVING = {
    "10 of 20": "**Saving** (expected, not measured on this model): *base* computes 10 of 20 steps, so sampling takes "
    "about half the time.",
    "11 of 30": "**Saving** (expected, not measured on this model): *base* computes 11 of 30 steps, so sampling takes "
    "about 40 % of the time.",
}
LFCACHE_ADDS = "LFCache adds less than 0.2 GB."
SWAPPED = f"ComfyUI keeps in the computer's memory what does not fit the GPU. {LFCACHE_ADDS}"
FP16_1B = f"**Memory**: about 3 GB of weights. {SWAPPED}"
FP16_14B = f"**Memory**: about 33 GB of weights (17 GB with *weight_dtype* fp8_e4m3fn). {SWAPPED}"
TWO_EXPERTS = f"**Memory**: about 14 GB of weights for each expert, one after the other. {SWAPPED}"
FP16_5B = f"**Memory**: about 10 GB of weights. {SWAPPED}"
EVERY_GPU_1B = f"**Memory**: about 3 GB of weights on every GPU. {LFCACHE_ADDS}"
EVERY_GPU_13B = (
    f"**Memory**: about 26 GB of weights on every GPU (13 GB with *weight_dtype* fp8_e4m3fn). {LFCACHE_ADDS}"
)
BF16_13B = f"**Memory**: about 26 GB of weights (13 GB with *weight_dtype* fp8_e4m3fn). {SWAPPED}"
FP16_8B = f"**Memory**: about 17 GB of weights (8 GB with *weight_dtype* fp8_e4m3fn). {SWAPPED}"
EXPERTS = (
    "Each expert has an LFCache and a Cache Stats of its own. Tick *All samplers* on one Cache Stats to see both. "
    "*calibrate_from* is for the presets custom and paper: the second expert goes on with the scale of the first."
)
COMPARED = (
    "Samples the same noise three times: without a cache, with **PreciseCache LFCache** and with ComfyUI's "
    "**EasyCache**, and puts the videos side by side. PSNR and SSIM say how near a video is to the uncached one."
)
SHARE = "Was it worth it on your GPU? Share the video and the numbers of *Quality and speed*."
COST = (
    "A cache that computes more steps is nearer to the uncached video, so look at the time too. One seed says little."
)


def about(first, files, memory, *others):
    """The paragraphs of a template's first note. files: what it loads, as `graph.file` makes them."""
    names = ", ".join(f"{file['directory']}/{file['name']}" for file in files)
    return [first, *others, memory, FILES, names]
