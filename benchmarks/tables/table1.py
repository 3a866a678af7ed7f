"""The paper's Table 1 outside ComfyUI: `python3 run.py bench table1`.

Our presets and diffusers' own caches sample the same clips from the same noise through the same pipeline. Quality is
PSNR, SSIM and, where it is installed, LPIPS of the frames against the uncached clip. MACs are counted by torch, trials
included. With a GPU and --weights (a folder or a name that `from_pretrained` takes) it is the paper's table, with the
latency of each method. Without --weights it is the bundled tiny model through WanPipeline, and the table says so: its
MACs and its quality are real, but it says nothing about seconds or about a large model's videos.
The command resumes from what --out already holds; --only takes the beginnings of row names; --table measures nothing.
"""

import contextlib
import importlib.metadata
import json
import logging
import sys
import time

import torch

from benchmarks.diffusers_methods import METHODS, OURS, calibrate_magcache
from benchmarks.meter import flop_counter
from benchmarks.options import ModelParser
from benchmarks.perceptual import perceptual_distance
from benchmarks.quality import compare
from precisecache_core.tiny import bundle
from precisecache_core.tiny.prompts import encode_words
from testkit.models import trained_model
from tools.machine import describe_machine, head

BEST_PSNR = 100.0  # dB that equal videos count as, so that means stay finite
GUIDANCE = 4.0
SHAPE = (1, 16, 4, 32, 32)


class TinyClips:
    """The bundled model through WanPipeline with an Euler scheduler."""

    def __init__(self, name, steps):
        from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
        from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

        self.trained = trained_model(name)
        self.steps = steps
        self.codec = bundle.load_codec(self.trained.folder)
        weights, metadata = bundle.read_weights(self.trained.folder)
        sizes = bundle.config_of(weights, json.loads(metadata["config"])["transformer"]["num_heads"])
        transformer = WanTransformer3DModel(
            num_attention_heads=sizes.num_heads,
            attention_head_dim=sizes.dim // sizes.num_heads,
            in_channels=sizes.in_dim,
            out_channels=sizes.in_dim,
            text_dim=sizes.text_dim,
            freq_dim=sizes.freq_dim,
            ffn_dim=sizes.ffn_dim,
            num_layers=sizes.num_layers,
            eps=sizes.eps,
        )
        weights = {key: tensor.float() for key, tensor in weights.items()}
        transformer.load_state_dict(convert_wan_transformer_to_diffusers(weights))
        vae = AutoencoderKLWan(base_dim=8, z_dim=sizes.in_dim, dim_mult=[1, 1, 1, 1], num_res_blocks=1)  # not used
        self.pipe = WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=self.trained.shift),
            transformer=transformer.eval(),
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.what = f"tiny model {name}, latents {' x '.join(map(str, SHAPE))}"

    def sample(self, seed):
        """The frames of a clip, (frames, height, width, 3) float in [0, 1]."""
        words = self.trained.prompt_of(seed)
        latent = self.pipe(
            prompt_embeds=encode_words(words, self.trained.words),
            negative_prompt_embeds=encode_words([""] * len(words), self.trained.words),
            height=8 * SHAPE[3],
            width=8 * SHAPE[4],
            num_frames=4 * (SHAPE[2] - 1) + 1,
            num_inference_steps=self.steps,
            guidance_scale=GUIDANCE,
            latents=torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)),
            output_type="latent",
        ).frames
        return self.codec.decode(latent)[0].permute(1, 2, 3, 0).numpy()


class RealClips:
    """A real pipeline on a GPU: --weights, one clip per line of --prompts."""

    def __init__(self, weights, prompts, steps, size, frames):
        from diffusers import DiffusionPipeline

        self.pipe = DiffusionPipeline.from_pretrained(weights, torch_dtype=torch.bfloat16).to("cuda")
        self.pipe.set_progress_bar_config(disable=True)
        self.prompts = prompts.read_text("utf-8").splitlines()
        self.given = dict(width=size[0], height=size[1], num_frames=frames, num_inference_steps=steps)
        self.what = f"{weights}, {size[0]}x{size[1]}, {frames} frames"

    def sample(self, seed):
        generator = torch.Generator("cuda").manual_seed(seed)
        prompt = self.prompts[seed % len(self.prompts)]
        return self.pipe(prompt, generator=generator, output_type="np", **self.given).frames[0]


def measure(clips, method, seed, reference):
    """One record: cost (FLOPs over those of the uncached clip), seconds on a GPU, quality."""
    context = contextlib.nullcontext() if method is None else method.apply(clips.pipe, clips.steps)
    with context as cache:
        counter = flop_counter()
        with counter:
            video = clips.sample(seed)
        seconds = None
        if torch.cuda.is_available():  # again, because counting takes time too
            torch.cuda.synchronize()
            start = time.perf_counter()
            clips.sample(seed)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        run = cache.report()["runs"][-1] if cache else None
    if reference is None:
        return video, {"flops": counter.get_total_flops(), "seconds": seconds}
    psnr, ssim = compare(reference[0], video)
    record = {
        "seed": seed,
        "name": method.name,
        "cost": counter.get_total_flops() / reference[1]["flops"],
        "speedup": seconds and reference[1]["seconds"] / seconds,
        "seconds": seconds,
        "psnr": min(psnr, BEST_PSNR),
        "ssim": ssim,
        "lpips": perceptual_distance(reference[0], video),
    }
    return video, record | ({"decisions": run["decisions"]} if run else {})


def work(clips, methods, seeds, path):
    """Measure what the file does not hold yet; one line of JSON per method and clip."""
    done = {(r["seed"], r["name"]) for r in read(path)}
    for seed in seeds:
        left = [method for method in methods if (seed, method.name) not in done]
        if not left:
            continue
        reference = measure(clips, None, seed, None)
        for method in left:
            try:
                if method.family == "MagCache" and not hasattr(clips.pipe, "mag_ratios"):
                    calibrate_magcache(clips.pipe, lambda: clips.sample(1000), clips.steps)
                record = measure(clips, method, seed, reference)[1]
            except Exception as error:  # a cache of others that cannot run on this pipeline is a row that says so
                if method.family in (OURS, "flash"):
                    raise
                record = {"seed": seed, "name": method.name, "error": f"{type(error).__name__}: {error}"[:200]}
                clips.pipe.transformer.disable_cache()
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")


def read(path):
    lines = path.read_text().splitlines() if path.is_file() else []
    return list({(r["seed"], r["name"]): r for r in map(json.loads, lines)}.values())


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def points_of(records):
    """{method name: (mean cost, mean PSNR)}, of those without an error."""
    found = {}
    for name in dict.fromkeys(r["name"] for r in records):
        rows = [r for r in records if r["name"] == name and "error" not in r]
        if rows:
            found[name] = (mean([r["cost"] for r in rows]), mean([r["psnr"] for r in rows]))
    return found


def at(curve, cost):
    """PSNR of a curve of (cost, PSNR), sorted, at a cost; None outside of it. Linear between neighbours."""
    for (low, first), (high, second) in zip(curve, curve[1:]):
        if low <= cost <= high:
            return first + (second - first) * ((cost - low) / max(high - low, 1e-12))
    return None


def leads(points, methods):
    """[(name, cost, lead in dB or None)]: ours over each setting of another family, at that setting's cost."""
    curve = sorted(points[m.name] for m in methods if m.family == OURS and m.name in points)
    others = [m.name for m in methods if m.family not in (OURS, "flash") and m.name in points]
    found = []
    for name in others:
        cost, psnr = points[name]
        there = at(curve, cost)
        found.append((name, cost, None if there is None else there - psnr))
    return found


def cell(value, form):
    return "-" if value is None else format(value, form)


def table_lines(records, methods):
    lines = [
        f"{'method':22} {'MACs':>7} {'PSNR':>7} {'SSIM':>7} {'LPIPS':>7} {'seconds':>8} {'speed-up':>8} {'clips':>5}"
    ]
    for method in methods:
        rows = [r for r in records if r["name"] == method.name]
        good = [r for r in rows if "error" not in r]
        if rows and not good:
            lines.append(f"{method.name:22} did not run: {rows[0]['error']}")
        if not good:
            continue
        values = {key: mean([r[key] for r in good]) for key in ("cost", "psnr", "ssim", "lpips", "seconds", "speedup")}
        lines.append(
            f"{method.name:22} {values['cost']:7.1%} {values['psnr']:7.2f} {cell(values['ssim'], '7.4f'):>7} "
            f"{cell(values['lpips'], '7.4f'):>7} {cell(values['seconds'], '8.2f'):>8} "
            f"{cell(values['speedup'], '8.2f'):>8} {len(good):5}"
        )
    return lines


def lead_lines(records, methods):
    found = leads(points_of(records), methods)
    inside = [lead for _, _, lead in found if lead is not None]
    lines = [
        "",
        "ours (base, turbo and budget, linear between them) against each other setting, at that setting's MACs",
    ]
    for name, cost, lead in found:
        lines.append(
            f"  {name:22} {cost:6.1%}  " + ("outside of what ours spans" if lead is None else f"{lead:+.2f} dB")
        )
    if inside:
        lines.append(f"least lead {min(inside):+.2f} dB, mean {mean(inside):+.2f}, over {len(inside)} settings")
    return lines


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of the names of the rows to measure")
    parser.add_argument("--table", action="store_true", help="measure nothing, only write the table")
    parser.add_argument("--part", type=int, nargs=2, default=[0, 1], help="measure every n-th clip: i n")
    parser.add_argument("--weights", help="of a real pipeline; needs a GPU")
    parser.add_argument("--prompts", help="a file, one prompt a line")
    parser.add_argument("--size", type=int, nargs=2, default=[832, 480], help="width and height")
    parser.add_argument("--frames", type=int, default=81)
    args = parser.parse_args()
    if args.weights and not torch.cuda.is_available():
        sys.exit("--weights needs a GPU; without it the tiny model is measured")
    logging.disable(logging.WARNING)
    torch.set_grad_enabled(False)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.weights:
        from pathlib import Path

        clips = RealClips(args.weights, Path(args.prompts), args.steps, args.size, args.frames)
        name = f"table1_{args.weights.replace('/', '_')}"
    else:
        clips, name = TinyClips(args.model, args.steps), f"table1_tiny_{args.steps}"
    part, parts = args.part
    path = args.out / f"{name}.{part}.jsonl"
    methods = [m for m in METHODS if any(m.name.startswith(start) for start in args.only)]
    if not args.table:
        work(clips, methods, range(part, args.clips, parts), path)
    records = [r for file in sorted(args.out.glob(f"{name}.*.jsonl")) for r in read(file)]
    records = [r for r in records if r["seed"] < args.clips]
    facts = f"diffusers {importlib.metadata.version('diffusers')}", describe_machine()
    lines = [
        *head("table1", *facts),
        f"{clips.what}, {type(clips.pipe).__name__}, {args.steps} steps, {args.clips} clips",
    ]
    if not args.weights:
        lines.append(
            "No real weights and no GPU here: this is the tiny model. It is not the paper's Table 1 and has no latency."
        )
    lines += ["", *table_lines(records, METHODS), *lead_lines(records, METHODS)]
    (args.out / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
