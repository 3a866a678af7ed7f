"""The options that every command has that measures on a trained model."""

import argparse
from pathlib import Path

from testkit.models import DEFAULT, MODELS
from testkit.pack import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def results_of(model, folder=RESULTS):
    """Where results of the model of this name go: `folder` itself for the default, else a folder of its name there."""
    return folder if model == DEFAULT else folder / model


class ModelParser(argparse.ArgumentParser):
    """A parser with --model and --out.

    The `out` that it returns is already the model's own folder. If a command has a --shift without a default, the
    model's takes its place.
    """

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawTextHelpFormatter)
        self.add_argument("--model", choices=MODELS, default=DEFAULT, help="what is measured on, see testkit/models.py")
        self.add_argument(
            "--out",
            type=Path,
            default=RESULTS,
            help=f"folder of the results; models other than {DEFAULT} have their\nown in it",
        )

    def parse_known_args(self, args=None, namespace=None):
        found, unknown = super().parse_known_args(args, namespace)
        found.out = results_of(found.model, found.out)
        if getattr(found, "shift", False) is None:
            found.shift = MODELS[found.model].shift
        return found, unknown
