"""Guiders and guidance add-ons on the tiny model."""

import comfy.samplers
import torch

from compatibility.cell import Cell
from compatibility.conditioning import architecture
from compatibility.stock import stock
from testkit.architectures import ARCHITECTURES, conditioning

STEPS = 16


def ksampler(cfg=4.0, **options):
    """A cell's run: KSampler on the tiny model."""
    return lambda bench, attach: bench.sample(attach(bench.model), steps=STEPS, cfg=cfg, **options)


def node(module, name, **inputs):
    """A cell's run: KSampler on the tiny model after one of the host's stock nodes and our node."""

    def run(bench, attach):
        return bench.sample(attach(stock(module, name, model=bench.model, **inputs)), steps=STEPS)

    return run


def guided(make):
    """A cell's run: the guider of make(bench, model), sampled as SamplerCustomAdvanced does."""

    def run(bench, attach):
        model = attach(bench.model)
        return sample_guider(bench, make(bench, model), model)

    return run


def sample_guider(bench, guider, model, sampler="euler", noise=None):
    noise = bench.noise() if noise is None else noise
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
    return guider.sample(
        noise, torch.zeros_like(noise), comfy.samplers.sampler_object(sampler), sigmas, disable_pbar=True, seed=0
    )


def basic(bench, model):
    return stock("comfy_extras.nodes_custom_sampler", "BasicGuider", model=model, conditioning=bench.positive)


def distilled(name):
    """A cell's run: a model that takes its guidance as a number, without a negative prompt."""

    def run(bench, attach):
        model = attach(architecture(name))
        positive = stock("comfy_extras.nodes_flux", "FluxGuidance", conditioning=conditioning(name, 1), guidance=6.0)
        guider = stock("comfy_extras.nodes_custom_sampler", "BasicGuider", model=model, conditioning=positive)
        noise = torch.randn(ARCHITECTURES[name].latent, generator=torch.Generator().manual_seed(3))
        return sample_guider(bench, guider, model, noise=noise)

    return run


def dual(style):
    def make(bench, model):
        more = {} if style is None else {"style": style}
        return stock(
            "comfy_extras.nodes_custom_sampler",
            "DualCFGGuider",
            model=model,
            cond1=bench.positive,
            cond2=bench.tiny.conditioning("square", "blue", "left"),
            negative=bench.negative,
            cfg_conds=3.0,
            cfg_cond2_negative=2.0,
            **more,
        )

    return make


def perp_neg(bench, model):
    return stock(
        "comfy_extras.nodes_perpneg",
        "PerpNegGuider",
        model=model,
        positive=bench.positive,
        negative=bench.tiny.conditioning("square", "blue", "left"),
        empty_conditioning=bench.negative,
        cfg=4.0,
        neg_scale=1.0,
    )


def dual_model(bench, attach):
    """The negative prompt has a model of its own; both models go through our node."""
    model, other = attach(bench.model), attach(bench.model.clone())
    guider = stock(
        "comfy_extras.nodes_custom_sampler",
        "DualModelGuider",
        model=model,
        positive=bench.positive,
        negative=bench.negative,
        model_negative=other,
        cfg=4.0,
    )
    return sample_guider(bench, guider, model)


def cells():
    def cell(name, run, **more):
        return Cell("Guidance", name, run, **more)

    return [
        cell("cfg 4", ksampler()),
        cell("cfg 1", ksampler(cfg=1.0)),
        cell("BasicGuider, no negative prompt", guided(basic)),
        *(
            cell(f"BasicGuider, distilled guidance ({name})", distilled(name), bound=None, alpha=10.0)
            for name in ("hunyuanvideo", "flux")
        ),
        cell("DualCFGGuider", guided(dual("regular"))),
        cell("DualCFGGuider, nested", guided(dual("nested")), alpha=0.12),
        cell("PerpNegGuider", guided(perp_neg)),
        cell("DualModelGuider", dual_model),
        cell(
            "SkipLayerGuidanceDiT",
            node(
                "comfy_extras.nodes_slg",
                "SkipLayerGuidanceDiT",
                double_layers="4, 9",
                single_layers="",
                scale=3.0,
                start_percent=0.0,
                end_percent=0.6,
                rescaling_scale=0.0,
            ),
        ),
        cell(
            "SkipLayerGuidanceDiTSimple",
            node(
                "comfy_extras.nodes_slg",
                "SkipLayerGuidanceDiTSimple",
                double_layers="4, 9",
                single_layers="",
                start_percent=0.0,
                end_percent=1.0,
            ),
            bound=0.6,
        ),
        cell("CFG-Zero", node("comfy_extras.nodes_cfg", "CFGZeroStar")),
        cell("CFG-Norm", node("comfy_extras.nodes_cfg", "CFGNorm", strength=1.0)),
        cell("APG", node("comfy_extras.nodes_apg", "APG", eta=1.0, norm_threshold=5.0, momentum=0.5)),
        cell(
            "APG with negative momentum",
            node("comfy_extras.nodes_apg", "APG", eta=0.5, norm_threshold=5.0, momentum=-0.5),
        ),
        cell("RescaleCFG", node("comfy_extras.nodes_model_advanced", "RescaleCFG", multiplier=0.7)),
        cell("TCFG", node("comfy_extras.nodes_tcfg", "TCFG")),
        cell("Mahiro", node("comfy_extras.nodes_mahiro", "Mahiro")),
        cell("NAG", node("comfy_extras.nodes_nag", "NAGuidance", nag_scale=3.0, nag_alpha=0.5, nag_tau=1.5)),
        cell("Epsilon Scaling", node("comfy_extras.nodes_eps", "EpsilonScaling", scaling_factor=1.005)),
        cell(
            "Temporal Score Rescaling",
            node("comfy_extras.nodes_eps", "TemporalScoreRescaling", tsr_k=0.95, tsr_sigma=1.0),
        ),
        cell(
            "FreSca",
            node("comfy_extras.nodes_fresca", "FreSca", scale_low=1.0, scale_high=1.25, freq_cutoff=2),
            bound=0.4,
        ),
        cell(
            "CFG Override",
            node("comfy_extras.nodes_custom_sampler", "CFGOverride", cfg=1.0, start_percent=0.5, end_percent=1.0),
        ),
    ]
