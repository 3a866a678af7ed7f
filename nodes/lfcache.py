"""Node PreciseCache LFCache: skip the sampling steps that change little."""

from typing import Any

from comfy_api.latest import io

from ..precisecache_core.blockcache.config import BlockCacheConfig
from ..precisecache_core.lfcache.config import (
    CACHE_DEVICES,
    DEFAULT_SHARE,
    PRESETS,
    REFERENCES,
    REUSES,
    TRIALS,
    LFCacheConfig,
)
from .host.attachment import Attachment, attach, attachment_of
from .host.presets import OFF, in_force
from .host.schema import advanced, node_id_of, noted

DEFAULTS = LFCacheConfig()
FLASH = "flash"


def _steps(preset: str, steps: int) -> int:
    return LFCacheConfig.from_preset(preset).budget(steps)


def cache_inputs() -> list:
    """The inputs that say how LFCache works, in the order of the node."""
    return [
        noted(
            io.Combo.Input,
            "preset",
            options=[OFF, *PRESETS],
            default="base",
            notes={"precisecache_in_force": in_force()},
            tooltip=f"base: quality first (computes {_steps('base', 20)} of 20 steps, {_steps('base', 50)} of "
            f"50). turbo: faster ({_steps('turbo', 20)} of 20, {_steps('turbo', 50)} of 50). budget: your own "
            "share of the steps. custom: your own alpha. "
            "paper: the published method to the letter, for comparison. flash: turbo and BlockCache at its "
            "defaults, faster still and less exact. off: every step is computed.",
        ),
        io.Float.Input(
            "alpha",
            default=DEFAULTS.alpha,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="How much change is allowed before a step is computed, relative to the largest "
            "change in the first steps. Higher is faster; 0 reuses nothing. Only the presets "
            "custom and paper use it.",
        ),
        io.Float.Input(
            "share",
            default=DEFAULT_SHARE,
            min=0.05,
            max=1.0,
            step=0.01,
            tooltip="The share of the steps that are computed; the others reuse earlier outputs. 0.4 takes "
            "about 40 % of the time. Only the preset budget uses it.",
        ),
        advanced(
            io.Int.Input,
            "warmup",
            default=DEFAULTS.warmup,
            min=2,
            max=100,
            step=1,
            tooltip="Number of model calls that are always computed at the start. They set the scale "
            "for alpha. Only the preset custom uses it.",
        ),
        advanced(
            io.Float.Input,
            "start_percent",
            default=DEFAULTS.start_percent,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Where in the schedule reuse may begin; 0 is the first step.",
        ),
        advanced(
            io.Float.Input,
            "end_percent",
            default=DEFAULTS.end_percent,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Where in the schedule reuse ends; 1 is the last step.",
        ),
        advanced(
            io.Combo.Input,
            "trial",
            options=list(TRIALS),
            default=DEFAULTS.trial,
            tooltip="snr_matched: the small latent is put back on the noise schedule, so that the "
            "model gets the input it was trained on. plain: as in the paper.",
        ),
        advanced(
            io.Combo.Input,
            "reference",
            options=list(REFERENCES),
            default=DEFAULTS.reference,
            tooltip="What a trial is compared with. trial: the trial of the last computed step. "
            "cached: that step's downsampled prediction, as in the paper.",
        ),
        advanced(
            io.Combo.Input,
            "reuse",
            options=list(REUSES),
            default=DEFAULTS.reuse,
            tooltip="What replaces a skipped step. corrected: the trend of the last two computed steps, and "
            "every computed step puts right what the skipped ones before it got wrong. fitted: the trend "
            "of the last two computed predictions, weighted by how well it held last time. taylor: the full "
            "trend. prediction: the last prediction, unchanged. residual: the last difference between "
            "prediction and input.",
        ),
        advanced(
            io.Int.Input,
            "factor_t",
            default=DEFAULTS.factor_t,
            min=1,
            max=16,
            step=1,
            tooltip="How many times fewer frames the trial has. Reduced automatically for short videos.",
        ),
        advanced(
            io.Int.Input,
            "factor_hw",
            default=DEFAULTS.factor_hw,
            min=1,
            max=16,
            step=1,
            tooltip="How many times smaller the trial is in height and in width. Smaller factors make the "
            "trial more accurate and slower; with both factors at 1, no trials are made.",
        ),
        advanced(
            io.Float.Input,
            "cutoff",
            default=DEFAULTS.cutoff,
            min=0.01,
            max=0.5,
            step=0.01,
            tooltip="Only frequencies below this radius count as change; it is a fraction of the shorter side.",
        ),
        advanced(
            io.Combo.Input,
            "cache_device",
            options=list(CACHE_DEVICES),
            default=DEFAULTS.cache_device,
            tooltip="Where predictions are kept. They are as large as the latent, so the model's own "
            "device is nearly always right.",
        ),
    ]


def cache_settings(
    preset: str, alpha: float, share: float, **settings: Any
) -> tuple[LFCacheConfig | None, BlockCacheConfig | None, str]:
    """(settings of LFCache, settings of BlockCache that come with them, both in a word or two), from these inputs.

    Raises ValueError naming setting, value and remedy.
    """
    config = None if preset == OFF else LFCacheConfig.from_preset(preset, alpha, share, **settings)
    blocks = BlockCacheConfig(cache_device=settings.get("cache_device", "model")) if preset == FLASH else None
    value = {"budget": f" {share:g}", "custom": f" {alpha:g}", "paper": f" {alpha:g}"}.get(preset, "")
    return config, blocks, f"LFCache {preset}{value}"


class PreciseCacheLFCache(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheLFCache",
            display_name="PreciseCache LFCache",
            category="PreciseCache",
            description=(
                "Makes sampling faster: tiny trials estimate how much the model's output changes "
                "at each step, and steps that change little reuse earlier outputs. Works "
                "with ComfyUI's samplers, schedulers and guidance nodes; needs no calibration."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to sample faster. Put this node last before the sampler."),
                *cache_inputs(),
                io.Model.Input(
                    "calibrate_from",
                    optional=True,
                    tooltip="For a second sampler that continues a first one, such as Wan2.2's low-noise expert: "
                    "connect the first sampler's MODEL with LFCache. This sampler then uses the first one's "
                    "scale for alpha and needs no new warm-up. Only the presets custom and paper use it.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # otherwise ComfyUI gives one of two equal nodes the other's MODEL
            outputs=[io.Model.Output(tooltip="The model with LFCache. Connect it to the sampler and to Cache Stats.")],
        )

    @classmethod
    def execute(
        cls, model: Any, preset: str, alpha: float, share: float, calibrate_from: Any = None, **settings: Any
    ) -> io.NodeOutput:
        config, blocks, label = cache_settings(preset, alpha, share, **settings)
        earlier = earlier_of(calibrate_from)
        return io.NodeOutput(attach(model, node_id_of(cls), blocks, label, lfcache=config, earlier=earlier))


def earlier_of(calibrate_from: Any) -> "Attachment | None":
    """The Attachment on the MODEL `calibrate_from`, or None.

    Also None for a MODEL without LFCache, which arrives if the first sampler's LFCache node is bypassed; the
    run then warns that it has no calibration.
    """
    attachment = attachment_of(calibrate_from) if calibrate_from is not None else None
    return attachment if attachment is not None and attachment.lfcache is not None else None
