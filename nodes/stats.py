"""Node Cache Stats: what the caches did in the sampler's run."""

import logging
from typing import Any

import torch
from comfy_api.latest import io

from ..precisecache_core.record.plot import plot_runs
from ..precisecache_core.record.report import build_report, dump_report
from .host.attachment import attachment_of
from .host.reports import runs_of

logger = logging.getLogger("precisecache")


def report_outputs() -> list:
    """The outputs of a node that reports runs."""
    return [
        io.Latent.Output(display_name="samples", tooltip="The sampler's output, unchanged."),
        io.String.Output(display_name="report", tooltip="The report as JSON."),
        io.Image.Output(display_name="plot", tooltip="The low-frequency difference and the decisions over the steps."),
    ]


def reported(samples: dict, runs: list[dict], none_known: str) -> io.NodeOutput:
    """What such a node returns for these report entries. none_known: what the log says if there are none."""
    report = build_report(runs)
    if not report["runs"]:
        logger.warning("PreciseCache: %s", none_known)
    picture = torch.from_numpy(plot_runs(report["runs"])).float().div(255)[None]
    return io.NodeOutput(samples, dump_report(report), picture, ui={"precisecache": [report]})


class PreciseCacheStats(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PreciseCacheStats",
            display_name="Cache Stats",
            category="PreciseCache",
            description="Reports what PreciseCache did: steps computed and reused, and why.",
            is_output_node=True,  # so that it runs and shows its panel with nothing connected
            inputs=[
                io.Model.Input("model", tooltip="The same MODEL that is connected to the sampler."),
                io.Latent.Input("samples", tooltip="The sampler's output; passed on unchanged."),
            ],
            outputs=report_outputs(),
        )

    @classmethod
    def execute(cls, model: Any, samples: dict) -> io.NodeOutput:
        attachment = attachment_of(model)
        return reported(
            samples,
            runs_of(attachment.id) if attachment else [],
            "Cache Stats knows no run of its model: give it the MODEL that the sampler gets, from the last "
            "PreciseCache node",
        )
