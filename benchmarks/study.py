"""What the commands that measure on a tiny model share: clips, records, tables, plots.

A command measures one record, a dict that JSON can hold, per clip and setting. Records are kept
under --out, so that a command that was stopped resumes where it was.
"""

import json
import sys
from dataclasses import dataclass, field

from benchmarks.meter import Meter
from benchmarks.options import ModelParser
from testkit.models import DEFAULT
from testkit.tiny_host import find_host, open_bench
from tools.comfyui.locate import comfyui_version
from tools.machine import describe_machine, head

KEY = "recorded_predictions"

# Okabe and Ito's palette, whose colours colour-blind readers can distinguish; its yellow is too pale for lines
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
WIDTH = 10.24  # inches, at 100 dots each


def host_version():
    return f"ComfyUI {comfyui_version(find_host())}"


def parser_of(description, clips=8):
    """A parser with the options that every study has."""
    parser = ModelParser(description)
    parser.add_argument("--clips", type=int, default=clips)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--shift", type=float, help="by default the model's")
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    parser.add_argument("--fresh", action="store_true", help="measure again what --out already holds")
    return parser


@dataclass
class Study:
    """A tiny model and how it is sampled."""

    bench: object
    steps: int = 50
    shift: float = 2.0
    shape: tuple = (1, 16, 4, 32, 32)
    base: object = field(init=False)
    flops_of: dict = field(init=False, default_factory=dict)  # {shape of the input: FLOPs}, see Meter

    def __post_init__(self):
        self.base = self.bench.shifted(self.shift)

    @classmethod
    def of(cls, args):
        """The study that a command's arguments ask for; ends the program if there is no ComfyUI."""
        return cls(open_bench(model=args.model), args.steps, args.shift, tuple(args.shape))

    def sample(self, model, seed):
        """The final latent of a model for the clip of this seed."""
        self.bench.ask_for(seed)
        return self.bench.sample(model, steps=self.steps, noise=self.bench.noise(self.shape, seed), seed=seed)

    def decode(self, latent):
        """The video of a latent, (B, T, H, W, C) float in [0, 1]."""
        return self.bench.vae.decode(latent)

    def run(self, model, seed):
        """(final latent, Meter) for the clip of this seed; the model must skip no part of an evaluation."""
        meter = Meter(self.flops_of)
        return self.sample(meter.attach(model), seed), meter

    def quality(self, reference, latent):
        """How close a final latent is to a reference: L2 norms of the latent's and of the video's error,
        the video's PSNR in dB (inf if equal) and the mean SSIM of its frames."""
        videos = self.decode(reference), self.decode(latent)
        psnr, ssim = psnr_and_ssim(*videos)
        return {
            "latent_error": (latent - reference).norm().item(),
            "video_error": (videos[1] - videos[0]).norm().item(),
            "psnr": psnr,
            "ssim": ssim,
        }

    def record(self, seed):
        """(Recording, final latent) of the uncached run of a clip."""
        recording = Recording(self.base)
        return recording, self.sample(recording.attach(self.base), seed)

    def settings(self):
        """The settings in which records must agree to be shown together."""
        return {"model": self.bench.trained.name, "steps": self.steps, "shift": self.shift, "shape": list(self.shape)}

    def lines(self, name, clips):
        """The head of this study's table."""
        shape = " x ".join(map(str, self.shape))
        return [
            *head(name, host_version(), describe_machine()),
            f"model {self.bench.trained.name}, latents {shape}, euler simple {self.steps} steps, "
            f"shift {self.shift:g}, cfg 4, {clips} clip{'s' * (clips != 1)}",
            "",
        ]


class Recording:
    """Every call of one run: input latent, noise level, denoised latent, and prediction."""

    def __init__(self, patcher):
        from PreciseCache.nodes.host.parametrization import affine_of

        self.affine = affine_of(patcher.get_model_object("model_sampling"))
        self.x, self.sigmas, self.denoised, self.predictions = [], [], [], []

    def attach(self, patcher):
        """A clone of the patcher whose calls are recorded."""
        from comfy.patcher_extension import WrappersMP

        def predict_noise(executor, x, timestep, model_options=None, seed=None):
            denoised = executor(x, timestep, model_options, seed)
            sigma = timestep.reshape(-1)[0]
            a, b = self.affine(sigma)
            self.x.append(x.clone())
            self.sigmas.append(sigma.item())
            self.denoised.append(denoised.clone())
            self.predictions.append((denoised - a * x) / b)
            return denoised

        patcher = patcher.clone()
        patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise)
        return patcher


def psnr_and_ssim(reference, video):
    """(PSNR in dB, mean SSIM over the frames) of two videos from `Study.decode`.

    Both are scikit-image's; PSNR is inf for equal videos, SSIM None below its window of 7 x 7.
    Ends the program if scikit-image is missing.
    """
    try:
        from benchmarks.quality import compare
    except ImportError:
        sys.exit('this benchmark needs scikit-image: pip install "precisecache[test]"')
    return compare(reference[0].numpy(), video[0].numpy())


class Records:
    """Lines of JSON in a file: one record per setting and clip, kept as soon as it is measured."""

    def __init__(self, path, study, is_fresh=False):
        self.path = path
        self.common = study.settings()
        lines = path.read_text().splitlines() if path.exists() and not is_fresh else []
        self.records = [{"model": DEFAULT, **json.loads(line)} for line in lines]  # older ones do not name it
        if is_fresh:
            path.unlink(missing_ok=True)

    def find(self, **key):
        """The record with these entries under this study's settings, or None."""
        key |= self.common
        return next((r for r in self.records if all(name in r and r[name] == v for name, v in key.items())), None)

    def under_settings(self):
        """All records under this study's settings."""
        return [r for r in self.records if all(r[name] == v for name, v in self.common.items())]

    def add(self, record):
        """Keep a record, with the study's settings."""
        record = self.common | record
        self.records.append(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return record


def mean(values):
    """The mean of the values that are not None; None if there are none."""
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def text(value, pattern):
    """A number in a format, "-" for None."""
    return "-" if value is None else format(value, pattern)


def write_table(path, lines):
    """Print a table and keep it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def write_plot(path, paint, rows=1, columns=1, height=4.2):
    """Draw with `paint(panels)`, an array (rows, columns) of matplotlib axes, into a PNG.

    height: of one row of panels, in inches. Without matplotlib it writes nothing and says so.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('no plot: matplotlib is not installed (pip install "precisecache[bench]")')
        return
    figure = Figure(figsize=(WIDTH, height * rows), dpi=100, layout="constrained")
    paint(figure.subplots(rows, columns, squeeze=False))
    figure.savefig(path)
    print(f"plot: {path}")
