"""Node PreciseCache Tiny Video Model: a bundled model that makes every graph runnable."""

from comfy_api.latest import io

from ..precisecache_core.tiny.prompts import COLORS, MOTIONS, SUBJECTS
from .host.tiny_model import conditioning, load_model, load_vae


class PreciseCacheTinyModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheTinyModel",
            display_name="PreciseCache Tiny Video Model",
            category="PreciseCache",
            description=(
                "A video model of a few megabytes in Wan2.1's format, bundled with PreciseCache, to try any "
                "graph on a laptop without a download. It is made for 256 x 256 pixels and 13 frames."
            ),
            inputs=[
                io.Combo.Input("subject", options=list(SUBJECTS), default="triangle", tooltip="What moves."),
                io.Combo.Input("color", options=list(COLORS), default="orange", tooltip="Its colour."),
                io.Combo.Input("motion", options=list(MOTIONS), default="right", tooltip="How it moves."),
            ],
            outputs=[
                io.Model.Output(tooltip="The tiny video model."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="Conditioning for the chosen subject, color and motion."
                ),
                io.Conditioning.Output(display_name="negative", tooltip="Conditioning for the unconditional branch."),
                io.Vae.Output(tooltip="Decodes the model's latents to frames."),
            ],
        )

    @classmethod
    def execute(cls, subject: str, color: str, motion: str) -> io.NodeOutput:
        return io.NodeOutput(load_model(), conditioning(subject, color, motion), conditioning(), load_vae())
