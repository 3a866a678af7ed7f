"""Samplers, schedulers, parts of a schedule, and shapes of latents, on the tiny model."""

import comfy.samplers
import torch

from compatibility.cell import COMPUTED, UNTRIED, Cell
from compatibility.conditioning import architecture, given
from compatibility.stock import stock, stock_all
from testkit.architectures import conditioning

STEPS = 12
SCHEDULERS = ("simple", "karras", "beta")


def ksampler(**options):
    return lambda bench, attach: bench.sample(attach(bench.model), **{"steps": STEPS, **options})


def shaped(*shape, **options):
    return lambda bench, attach: bench.sample(
        attach(bench.model), noise=bench.noise(shape), **{"steps": STEPS, **options}
    )


def custom(bench, model, sigmas, latent, noise="DisableNoise", sampler="euler"):
    """SamplerCustomAdvanced; returns its LATENT."""
    module = "comfy_extras.nodes_custom_sampler"
    guider = stock(module, "CFGGuider", model=model, positive=bench.positive, negative=bench.negative, cfg=4.0)
    noise = stock(module, "RandomNoise", noise_seed=3) if noise == "RandomNoise" else stock(module, noise)
    return stock(
        module,
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=comfy.samplers.sampler_object(sampler),
        sigmas=sigmas,
        latent_image=latent,
    )


def split(at):
    """A cell's run: SplitSigmas and two sampler nodes, one after the other, with the same MODEL."""

    def run(bench, attach):
        model = attach(bench.model)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 24)
        high, low = stock_all("comfy_extras.nodes_custom_sampler", "SplitSigmas", sigmas=sigmas, step=at)
        first = custom(bench, model, high, {"samples": torch.zeros_like(bench.noise())}, "RandomNoise")
        return custom(bench, model, low, first)["samples"]

    return run


def split_over_two_models(bench, attach):
    """Two stages, each with a MODEL and a node of its own, as for Wan2.2's two experts."""
    high_model = attach(bench.model)
    low_model = attach(bench.shifted(3.0), after=high_model)
    sigmas = comfy.samplers.calculate_sigmas(bench.model.get_model_object("model_sampling"), "simple", 24)
    first = custom(bench, high_model, sigmas[:13], {"samples": torch.zeros_like(bench.noise())}, "RandomNoise")
    return custom(bench, low_model, sigmas[12:], first)["samples"]


def start_and_end(bench, attach):
    """KSamplerAdvanced from step 6 to 20 of 24, on a latent that is not empty."""
    model = attach(bench.model)
    latent = {"samples": bench.noise(seed=5) * 0.7}
    return stock(
        "nodes",
        "KSamplerAdvanced",
        model=model,
        add_noise="enable",
        noise_seed=3,
        steps=24,
        cfg=4.0,
        sampler_name="euler",
        scheduler="simple",
        positive=bench.positive,
        negative=bench.negative,
        latent_image=latent,
        start_at_step=6,
        end_at_step=20,
        return_with_leftover_noise="enable",
    )["samples"]


def video_and_audio(bench, attach):
    """LTX-2: KSampler on a video latent and an audio latent, packed into one latent."""
    model = architecture("ltx-2")
    video, audio = {"samples": torch.zeros(1, 128, 3, 8, 8)}, {"samples": torch.zeros(1, 8, 20, 16)}
    latent = stock("comfy_extras.nodes_lt", "LTXVConcatAVLatent", video_latent=video, audio_latent=audio)
    result = stock(
        "nodes",
        "KSampler",
        model=attach(model),
        seed=3,
        steps=16,
        cfg=3.0,
        sampler_name="euler",
        scheduler="simple",
        positive=conditioning("ltx-2", 1),
        negative=conditioning("ltx-2", 2),
        latent_image=latent,
    )
    return tuple(result["samples"].unbind())


def cells():
    def cell(name, run, **more):
        return Cell("Sampling", name, run, **more)

    samplers = [
        Cell(
            "Samplers",
            f"{name}, {scheduler}",
            ksampler(sampler=name, scheduler=scheduler, cfg=1.5),
            bound=None,
            alpha=1.0,
            blocks=None,
        )
        for name in comfy.samplers.SAMPLER_NAMES
        for scheduler in SCHEDULERS
    ]
    few = {"verdict": COMPUTED, "says": "too few", "blocks": False, "bound": 0.0}
    small = {"verdict": UNTRIED, "says": "too small", "bound": None, "alpha": 10.0, "blocks": None}
    return samplers + [
        cell("denoise 0.6", ksampler(latent=torch.ones(1, 16, 2, 8, 8) * 0.1, denoise=0.6, steps=20)),
        cell("start and end step", start_and_end, alpha=1.0, blocks=None),
        cell("SplitSigmas, one model", split(12)),
        cell("SplitSigmas, two models", split_over_two_models),
        cell("1 step", ksampler(steps=1), **few),
        cell("2 steps", ksampler(steps=2), **few),
        cell("7 steps", ksampler(steps=7), **few),
        cell("8 steps", ksampler(steps=8), bound=0.6, blocks=None),
        cell("100 steps", ksampler(steps=100)),
        cell("batch of three", shaped(3, 16, 2, 8, 8, steps=16)),
        cell("image (flux)", given("flux", lambda bench, *prompts: prompts), bound=None, alpha=10.0),
        cell(
            "image of one frame (qwen-image)",
            given("qwen-image", lambda bench, *prompts: prompts),
            bound=None,
            alpha=10.0,
        ),
        cell(
            "video and audio in one latent (ltx-2)",
            video_and_audio,
            verdict=UNTRIED,
            says="packed latents",
            bound=None,
            alpha=10.0,
            blocks=False,
        ),
        cell("one frame", shaped(1, 16, 1, 8, 8), bound=None, alpha=1.0, blocks=None),
        cell("nine frames", shaped(1, 16, 9, 8, 8), bound=None, alpha=1.0, blocks=None),
        cell("odd sides", shaped(1, 16, 3, 9, 7), bound=None, alpha=1.0, blocks=None),
        cell("sides too small to shrink", shaped(1, 16, 1, 2, 2), **small),
        cell("one row of patches", shaped(1, 16, 1, 2, 16), bound=None, alpha=1.0, blocks=None),
    ]
