"""The calibration of TeaCache and MagCache for a model: `python3 run.py bench calibrate`.

It is measured on uncached clips of a tiny model in the real host, from seeds that no benchmark
uses. For TeaCache it is the polynomial of each signal, for MagCache the ratios of cond and uncond by
call. benchmarks/results has one JSON per model, schedule and size, which `frontier` reads.
"""

import json
import platform
import sys
from pathlib import Path

import torch

from benchmarks.options import RESULTS, ModelParser
from benchmarks.peers.block_stack import ReusedStack, attach_stack, relative_change
from benchmarks.peers.magcache import magnitude_ratio
from benchmarks.peers.run_state import options_of
from benchmarks.peers.teacache import ALWAYS, fit_coefficients, signal_of
from testkit.tiny_host import find_host, open_bench

FIRST_SEED = 1000


class Recorder(ReusedStack):
    """A branch that is always computed and records how it changes from call to call."""

    def __init__(self, model):
        super().__init__(len(model.blocks))
        self.block = model.blocks[0]
        self.now = {}
        self.input_changes = {name: [] for name in ALWAYS}
        self.output_changes = []
        self.ratios = [1.0]  # of the first call, which has no call before it

    def start_call(self, img, vec):
        for name, changes in self.input_changes.items():
            self._note(changes, name, signal_of(name, self.block, img, vec), relative_change)

    def computed(self, index, before, after):
        super().computed(index, before, after)
        if index == self.last:
            self._note(self.ratios, "residual", self.residual, magnitude_ratio)

    def output(self, value):
        self._note(self.output_changes, "output", value, relative_change)

    def _note(self, changes, name, value, measure):
        if name in self.now:
            changes.append(measure(value, self.now[name]))
        self.now[name] = value


def record(sample, patcher):
    """Recorders of cond and of uncond, {0: …, 1: …}, from one run of `sample(patcher)`."""
    from comfy.patcher_extension import WrappersMP

    recorders = {}

    def new_branch(model, steps, cond):
        recorders[cond] = Recorder(model)
        return recorders[cond]

    def diffusion_model(executor, x, *args, **kwargs):
        result = executor(x, *args, **kwargs)
        conds = options_of(args, kwargs)["cond_or_uncond"]
        for cond, rows in zip(conds, result.chunk(len(conds)), strict=True):
            recorders[cond].output(rows.clone())
        return result

    patcher = attach_stack(patcher, "calibrate", new_branch)
    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "calibrate", diffusion_model)
    sample(patcher)
    return recorders


def calibrate(clips):
    """The calibration, from the recorders of several clips."""
    recorders = [r for clip in clips for r in clip.values()]
    outputs = [c for r in recorders for c in r.output_changes]
    return {
        "teacache": {
            name: fit_coefficients([c for r in recorders for c in r.input_changes[name]], outputs) for name in ALWAYS
        },
        "magcache": [
            [sum(call) / len(call) for call in zip(*(clip[cond].ratios for clip in clips), strict=True)]
            for cond in (0, 1)
        ],
    }


def calibration_path(steps, shape, sampler="euler", shift=2.0, folder=RESULTS):
    """Where the calibration for this schedule and size of latents is kept. folder: of the model's results."""
    return folder / f"calibration_{sampler}{steps}_shift{shift:g}_{shape[2]}x{shape[3]}.json"


def read_calibration(path):
    """{"teacache": {signal: coefficients}, "magcache": [ratios of cond, of uncond], …}."""
    return json.loads(Path(path).read_text())


def words_of(trained, clip):
    """The words of a clip: each vocabulary in turn. The second time that a prompt uses one, it is a word further."""
    known = list(trained.words.values())
    return trained.prompt(*(clip + known[:i].count(words) for i, words in enumerate(known)))


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="simple")
    parser.add_argument("--shift", type=float, help="by default the model's")
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 16, 16])
    args = parser.parse_args()
    bench = open_bench(model=args.model)
    base = bench.shifted(args.shift)
    clips = []
    for clip in range(args.clips):
        bench.ask(*words_of(bench.trained, clip))
        noise = bench.noise(tuple(args.shape), FIRST_SEED + clip)
        clips.append(
            record(
                lambda model: bench.sample(
                    model, args.sampler, args.scheduler, args.steps, noise=noise, seed=FIRST_SEED + clip
                ),
                base,
            )
        )
    version = (find_host() / "comfyui_version.py").read_text().split('"')[-2]
    lines = {
        "command": f"python3 run.py bench calibrate {' '.join(sys.argv[1:])}".rstrip(),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, ComfyUI {version}, "
        f"{platform.machine()} CPU",
    }
    path = calibration_path(args.steps, args.shape, args.sampler, args.shift, args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    entries = (lines | settings | calibrate(clips)).items()
    path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in entries) + "\n}\n")
    print("\n".join([*lines.values(), str(path), path.read_text()]))


if __name__ == "__main__":
    main()
