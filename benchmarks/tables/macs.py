"""Multiply-accumulates at full size, beside the paper's: `python3 run.py bench macs`.

torch counts one forward of the host's own models on the meta device; a run has 50 steps. A call is
one guided evaluation: two branches for Wan2.1 and CogVideoX, one for HunyuanVideo, whose
guidance is distilled. Text encoders and VAE are not counted.
"""

import argparse
import logging
import platform
import sys
from dataclasses import dataclass

import torch

from benchmarks.counts import counted, model_of, small_latent
from benchmarks.meter import flop_counter
from benchmarks.schedules import PUBLISHED, STEPS, Tally, spread, tally
from precisecache_core.blockcache.config import BlockCacheConfig
from testkit.full_size import MODELS
from testkit.tiny_host import ROOT, enter_host, find_host
from tools.comfyui.locate import comfyui_version

P = 1e15
FACTORS = ((2, 4), (1, 4), (2, 2), (1, 2))  # over time, and over height and width
CASES = (
    ("wan14b", "720p"),
    ("wan14b", "480p"),
    ("wan1.3b", "720p"),
    ("wan1.3b", "480p"),
    ("hunyuan", "480p"),
    ("cogvideox-2b", "480p"),
    ("cogvideox-5b", "480p"),
)
PAPER_CASES = (("wan14b", "720p"), ("hunyuan", "480p"), ("cogvideox-2b", "480p"))
# of the READINGS below, the one that fits best in each row
PAPER_READINGS = {
    "wan14b": ("wan14b", (1280, 720), 81),
    "hunyuan": ("hunyuan", (640, 480), 65),
    "cogvideox-2b": ("cogvideox-2b", (720, 480), 49),
}
TARGET = 0.012  # of a call, for a trial of Wan2.1-14B at 720p


def parameters(name):
    """Billions of weights."""
    return sum(p.numel() for p in model_of(name).diffusion_model.parameters()) / 1e9


def call_of(name, size):
    """The Count of one guided call."""
    return counted(name, MODELS[name].latent(size), MODELS[name].branches)


def trial_of(name, latent, factor_t=2, factor_hw=4, rows=None):
    """(Count of one trial, the small latent)."""
    small = small_latent(name, latent, factor_t, factor_hw)
    return counted(name, small, rows or MODELS[name].branches), small


def baseline_lines():
    """One call and the whole uncached run of each model, beside the paper's figure."""
    lines = [
        f"{f'one guided call, and {STEPS} of them':42} {'latent':>9} {'branches':>8} {'TMACs a call':>12} "
        f"{'in attention':>12} {'PMACs':>7} {'paper':>7} {'ours / paper':>12}"
    ]
    for name, size in CASES:
        spec, call = MODELS[name], call_of(name, size)
        latent = spec.latent(size)
        whole = STEPS * call.macs / P
        paper = PUBLISHED[name].macs["none"] if (name, size) in PAPER_CASES else None
        title = f"{name} {size}, {'x'.join(map(str, spec.resolutions[size]))}, {spec.frames} frames"
        lines.append(
            f"{title:42} {'x'.join(map(str, latent[1:])):>9} {spec.branches:8} {call.macs / 1e12:12.1f} "
            f"{call.attention / call.macs:12.1%} {whole:7.2f} "
            + (f"{paper:7.2f} {whole / paper:12.2%}" if paper else "")
        )
    return [line.rstrip() for line in lines]


# what the words of Table 1 can mean: (model, resolution, frames)
READINGS = {
    "wan14b": [("wan14b", (1280, 720), 81)],
    "hunyuan": [("hunyuan", size, 65) for size in ((640, 480), (720, 480), (832, 480), (848, 480))],
    "cogvideox-2b": [(model, (720, 480), frames) for model in ("cogvideox-2b", "cogvideox-5b") for frames in (49, 48)],
}

PRODUCTS = "every product, attention's too"
COUNTERS = {
    PRODUCTS: lambda c, head: c.macs,
    "the same, and 1 operation per attention score": lambda c, head: c.macs + c.attention / (2 * head),
    "Linear and Conv modules only (a module hook)": lambda c, head: c.macs - c.attention,
    "every product in FLOPs (2 per MAC)": lambda c, head: 2 * c.macs,
    "Linear and Conv modules only, in FLOPs": lambda c, head: 2 * (c.macs - c.attention),
}


def hypothesis(counter, model, resolution, frames, branches):
    """PMACs of 50 calls, counted with this counter on this reading."""
    one = counted(model, MODELS[model].latent(resolution, frames), 1)
    return STEPS * branches * COUNTERS[counter](one, MODELS[model].head_dim) / P


def hypothesis_lines():
    """Every reading with every counter, with the model's own number of branches and with the other number."""
    lines = ["what the paper may have counted: PMACs of T = 50, and share of the paper's figure"]
    for row, readings in READINGS.items():
        paper = PUBLISHED[row].macs["none"]
        for model, resolution, frames in readings:
            lines.append(f"{model} {'x'.join(map(str, resolution))}, {frames} frames; paper {paper}")
            own = MODELS[model].branches
            for counter in COUNTERS:
                values = {b: hypothesis(counter, model, resolution, frames, b) for b in (own, 3 - own)}
                lines.append(
                    f"  {counter:46} "
                    + "   ".join(
                        f"{b} branch{'es' if b > 1 else '  '} {value:8.3f} {value / paper:8.2%}"
                        for b, value in values.items()
                    )
                )
    return lines


def vae_line():
    """How much the decoding by the VAE would add."""
    from comfy.ldm.wan.vae import WanVAE

    vae = WanVAE(
        dim=96,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        dropout=0.0,
    ).to("meta")
    counter = flop_counter()
    with counter:
        vae.decode(torch.empty(1, *MODELS["wan14b"].latent("720p"), device="meta"))
    macs = counter.get_total_flops() / 2 / P
    both = STEPS * call_of("wan14b", "720p").macs / P + macs
    return (
        f"Wan's VAE, decoding, would add {macs:.3f}: {both:.2f}, {both / PUBLISHED['wan14b'].macs['none']:.2%} "
        "of the paper's wan14b"
    )


def verdict_lines():
    """The conclusion: its figures are computed here, its words were written after reading the hypotheses."""
    lines = ["Read together: one counter fits all three rows, with the model's own guidance,"]
    for row, (model, resolution, frames) in PAPER_READINGS.items():
        paper = PUBLISHED[row].macs["none"]
        plain, scores = (hypothesis(c, model, resolution, frames, MODELS[model].branches) for c in list(COUNTERS)[:2])
        lines.append(
            f"  {row} at {'x'.join(map(str, resolution))}, {frames} frames: products {plain / paper:.2%}, "
            f"with one operation per score {scores / paper:.2%}"
        )
    return [
        *lines,
        "so its MACs are MACs of the network's products with attention: no module hook counted them. FLOPs of one",
        "branch would be the same number as MACs of two; HunyuanVideo, which has one, shows that it is MACs.",
        "HunyuanVideo's 480P fits 640x480 and no wider format; CogVideoX is the 2B model with 13 latent frames.",
        "One operation per attention score (softmax) closes the rest of two rows; that rest is small and the",
        "reading was found by looking, so it is a guess. Of Wan's rest the VAE explains a tenth; the remainder",
        "is open.",
    ]


def trial_lines():
    """What a trial costs, as a share of a call."""
    lines = [
        f"{'one trial, share of a call':20} "
        + " ".join(f"{f'{t}, {s}, {s}':>20}" for t, s in FACTORS)
        + f" {'2, 4, 4 cond only':>18}"
    ]
    for name, size in CASES:
        latent, call = MODELS[name].latent(size), call_of(name, size).macs
        cells = []
        for factors in FACTORS:
            trial, small = trial_of(name, latent, *factors)
            cells.append(f"{trial.macs / call:.2%} ({'x'.join(map(str, small[1:]))})".rjust(20))
        lines.append(f"{name + ' ' + size:20} {' '.join(cells)} {trial_of(name, latent, rows=1)[0].macs / call:18.2%}")
    share = trial_of("wan14b", MODELS["wan14b"].latent("720p"))[0].macs / call_of("wan14b", "720p").macs
    return [
        *lines,
        f"target: at most {TARGET:.1%} for wan14b at 720p with 2, 4, 4: {share:.2%}, "
        f"{'met' if share <= TARGET else 'NOT MET'}",
    ]


@dataclass(frozen=True)
class Cost:
    """MACs of a run with the pack: computed calls, trials, and what the skipped block calls save."""

    calls: float
    trials: float
    saved: float
    tally: Tally

    @property
    def macs(self):
        return self.calls + self.trials - self.saved


def cost_of(name, size, setting, steps=STEPS):
    """The Cost of one of the paper's settings in the pack's own run."""
    spec, call = MODELS[name], call_of(name, size).macs
    latent = spec.latent(size)
    run = tally(
        spread(steps, round(steps * PUBLISHED[name].computed(setting) / STEPS)),
        spec.blocks,
        BlockCacheConfig() if setting == "flash" else None,
    )
    block = (call - counted(name, latent, spec.branches, layers=0).macs) / spec.blocks
    return Cost(run.decisions.count("C") * call, run.trials * trial_of(name, latent)[0].macs, run.skipped * block, run)


def schedule_lines():
    """The paper's schedules with our trial and our BlockCache."""
    lines = [
        "the paper's settings in our run: as many computed calls as its MACs stand for (flash: turbo's)",
        f"{'':20} {'paper PMACs':>11} {'share':>6} {'in calls':>8} {'(by time)':>9}   {'computed':>8} "
        f"{'trials':>6} {'skipped block calls':>21} {'PMACs':>7} {'share':>6} {'trials':>6} {'/ paper':>8}",
    ]
    for name, size in PAPER_CASES:
        paper, whole = PUBLISHED[name], STEPS * call_of(name, size).macs
        for setting in ("base", "turbo", "flash"):
            cost = cost_of(name, size, setting)
            share = paper.macs[setting] / paper.macs["none"]
            computed = cost.tally.decisions.count("C")
            blocks = MODELS[name].blocks * computed
            skipped = f"{cost.tally.skipped} of {blocks} ({cost.tally.skipped / blocks:.1%})"
            lines.append(
                f"{name + ' ' + setting:20} {paper.macs[setting]:11.2f} {share:6.1%} {STEPS * share:8.2f} "
                f"{STEPS * paper.seconds[setting] / paper.seconds['none']:9.2f}   {computed:8} {cost.tally.trials:6} "
                f"{skipped:>21} {cost.macs / P:7.2f} {cost.macs / whole:6.1%} {cost.trials / whole:6.2%} "
                f"{cost.macs / whole / share:8.1%}"
            )
    return [
        *lines,
        "/ paper: our share of the baseline over the paper's share of its own. A skipped block counts as "
        "the mean block.",
        "trials: one a call; a real run of the pack leaves out a quarter of them or more.",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.parse_args()
    host = find_host()
    if host is None:
        sys.exit("this benchmark needs a ComfyUI: set COMFYUI_PATH")
    enter_host(host, is_fused=True)
    logging.disable(logging.INFO)
    torch.set_grad_enabled(False)
    lines = [
        f"command: python3 run.py bench macs {' '.join(sys.argv[1:])}".rstrip(),
        f"python {platform.python_version()}, torch {torch.__version__}, ComfyUI {comfyui_version(host)}, "
        f"{platform.machine()} CPU, meta device",
        "parameters: " + ", ".join(f"{n} {parameters(n):.2f} billion" for n in MODELS),
        "",
        *baseline_lines(),
        "",
        *hypothesis_lines(),
        vae_line(),
        *verdict_lines(),
        "",
        *trial_lines(),
        "",
        *schedule_lines(),
    ]
    (ROOT / "benchmarks" / "results" / "macs.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
