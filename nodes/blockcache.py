"""Node PreciseCache BlockCache: skip the transformer blocks that change little."""

from typing import Any

from comfy_api.latest import io

from ..precisecache_core.blockcache.config import CACHE_DEVICES, STORAGES, BlockCacheConfig
from .host.attachment import attach
from .host.schema import advanced, node_id_of

DEFAULTS = BlockCacheConfig()


def block_inputs() -> list:
    """The inputs that say how BlockCache works, in the order of the node."""
    return [
        io.Float.Input(
            "cache_rate",
            default=DEFAULTS.cache_rate,
            min=0.0,
            max=0.95,
            step=0.05,
            tooltip="Share of the blocks that are skipped. Higher is faster; 0 skips nothing.",
        ),
        io.Int.Input(
            "reuse_steps",
            default=DEFAULTS.reuse_steps,
            min=1,
            max=100,
            step=1,
            tooltip="How many computed steps in a row skip these blocks before all blocks are computed again.",
        ),
        advanced(
            io.Float.Input,
            "start_percent",
            default=DEFAULTS.start_percent,
            min=0.0,
            max=0.99,
            step=0.01,
            tooltip="Where in the schedule skipping may begin; 0 is the first step. Later is more accurate.",
        ),
        advanced(
            io.Combo.Input,
            "storage",
            options=list(STORAGES),
            default=DEFAULTS.storage,
            tooltip="merged: one tensor for each group of neighbouring skipped blocks, which saves memory. "
            "per_block: one tensor for each block, as in the paper.",
        ),
        advanced(
            io.Combo.Input,
            "cache_device",
            options=list(CACHE_DEVICES),
            default=DEFAULTS.cache_device,
            tooltip="Where these tensors are kept. cpu saves GPU memory and takes a little more time.",
        ),
    ]


class PreciseCacheBlockCache(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheBlockCache",
            display_name="PreciseCache BlockCache",
            category="PreciseCache",
            description=(
                "Makes computed steps faster: the transformer blocks that change the picture least are "
                "replaced by what they added a few steps ago. Works alone or together with "
                "PreciseCache LFCache, in either order."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to sample faster."),
                *block_inputs(),
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # otherwise ComfyUI gives one of two equal nodes the other's MODEL
            outputs=[io.Model.Output(tooltip="The model with BlockCache.")],
        )

    @classmethod
    def execute(cls, model: Any, cache_rate: float, reuse_steps: int, **settings: Any) -> io.NodeOutput:
        config = BlockCacheConfig(cache_rate=cache_rate, reuse_steps=reuse_steps, **settings)
        return io.NodeOutput(attach(model, node_id_of(cls), label=f"BlockCache {cache_rate:g}", blockcache=config))
