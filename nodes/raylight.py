"""The nodes for several GPUs: PreciseCache on Raylight's RAY_ACTORS in place of a MODEL."""

from typing import Any

from comfy_api.latest import io

from ..precisecache_core.blockcache.config import BlockCacheConfig
from .blockcache import block_inputs
from .host.presets import OFF
from .host.reports import runs_of
from .host.schema import node_id_of
from .host.workers import import_ray, plan_of, with_caches
from .lfcache import cache_inputs, cache_settings
from .stats import report_outputs, reported

CATEGORY = "PreciseCache/Raylight"
RayActors = io.Custom("RAY_ACTORS")


class PreciseCacheLFCacheRay(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheLFCacheRay",
            display_name="PreciseCache LFCache (Ray)",
            category=CATEGORY,
            description=(
                "PreciseCache LFCache for several GPUs with Raylight: steps that change little reuse earlier "
                "outputs, the same steps on every GPU. Needs the custom nodes of Raylight."
            ),
            inputs=[
                RayActors.Input(
                    "ray_actors",
                    tooltip="Raylight's workers with the model, from Load Diffusion Model (Ray). Put this node last "
                    "before the sampler.",
                ),
                *cache_inputs(),
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,
            outputs=[
                RayActors.Output(
                    display_name="ray_actors",
                    tooltip="The workers with LFCache. Connect them to one of Raylight's samplers.",
                )
            ],
        )

    @classmethod
    def execute(cls, ray_actors: Any, preset: str, alpha: float, share: float, **settings: Any) -> io.NodeOutput:
        config, blocks, label = cache_settings(preset, alpha, share, **settings)
        return io.NodeOutput(with_caches(ray_actors, node_id_of(cls), label, blocks, lfcache=config))


class PreciseCacheBlockCacheRay(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheBlockCacheRay",
            display_name="PreciseCache BlockCache (Ray)",
            category=CATEGORY,
            description=(
                "PreciseCache BlockCache for several GPUs with Raylight: every GPU skips the same transformer "
                "blocks. Works alone or together with PreciseCache LFCache (Ray), in either order."
            ),
            inputs=[
                RayActors.Input(
                    "ray_actors", tooltip="Raylight's workers with the model, from Load Diffusion Model (Ray)."
                ),
                io.Combo.Input(
                    "mode", options=["on", OFF], default="on", tooltip="off: every block of every step is computed."
                ),
                *block_inputs(),
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,
            outputs=[RayActors.Output(display_name="ray_actors", tooltip="The workers with BlockCache.")],
        )

    @classmethod
    def execute(cls, ray_actors: Any, mode: str, cache_rate: float, reuse_steps: int, **settings: Any) -> io.NodeOutput:
        config = BlockCacheConfig(cache_rate=cache_rate, reuse_steps=reuse_steps, **settings)
        label = f"BlockCache {cache_rate:g}"
        used = None if mode == OFF else config
        return io.NodeOutput(with_caches(ray_actors, node_id_of(cls), label, blockcache=used))


class PreciseCacheStatsRay(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheStatsRay",
            display_name="Cache Stats (Ray)",
            category=CATEGORY,
            description="Reports what PreciseCache did on Raylight's workers: steps computed and reused, and why.",
            is_output_node=True,  # so that it runs and shows its panel with nothing connected
            inputs=[
                RayActors.Input("ray_actors", tooltip="The ray_actors output of the sampler, or those it was given."),
                io.Latent.Input("samples", tooltip="The sampler's output; passed on unchanged."),
            ],
            outputs=report_outputs(),
        )

    @classmethod
    def execute(cls, ray_actors: Any, samples: dict) -> io.NodeOutput:
        import_ray()
        plan = plan_of(ray_actors)
        if plan is not None:
            plan.collect()
        return reported(
            samples,
            runs_of(plan.attachment.id) if plan else [],
            "Cache Stats (Ray) knows no run of its workers: give it the ray_actors that the sampler gets, from the "
            "last PreciseCache node",
        )
