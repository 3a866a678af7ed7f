"""How well a trial tells the true LFD: `python -m benchmarks.trial_agreement --clips 4`.

On the tiny model in the real host, every call computed: Spearman's rank correlation over
the run of the trial's LFD with the full-resolution LFD of the predictions themselves,
both against the call before; mean and, in brackets, lowest over the clips, for each
shrinking, trial and reference.
"""

import argparse
import platform
import sys

import torch

from benchmarks.tiny_host import ROOT, open_bench, pack_module

FACTORS = ((2, 4), (1, 4), (2, 2), (1, 2))
TRIALS = (("snr_matched", "trial"), ("plain", "trial"), ("plain", "cached"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--shift", type=float, default=2.0)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 32, 32])
    args = parser.parse_args()
    bench = open_bench()
    base = bench.shifted(args.shift)
    prompts = pack_module("precisecache_core.tiny.prompts")
    lines = [f"command: python -m benchmarks.trial_agreement {' '.join(sys.argv[1:])}",
             f"python {platform.python_version()}, torch {torch.__version__}, {platform.machine()} CPU",
             f"latents {tuple(args.shape)}, euler simple {args.steps} steps, shift {args.shift:g}, cfg 4, "
             f"{args.clips} clips", "",
             f"{'factors':9} " + "  ".join(f"{trial} / {reference}" for trial, reference in TRIALS)]
    for factor_t, factor_hw in FACTORS:
        cells = []
        for trial, reference in TRIALS:
            model = bench.lfcache(base, alpha=0.0, trial=trial, reference=reference, factor_t=factor_t,
                                  factor_hw=factor_hw)
            found = []
            for seed in range(args.clips):
                bench.ask(*(words[seed % len(words)] for words in (prompts.SUBJECTS, prompts.COLORS, prompts.MOTIONS)))
                bench.sample(model, steps=args.steps, noise=bench.noise(tuple(args.shape), seed), seed=seed)
                found.append(bench.report(model)["trial_agreement"])
            cell = f"{sum(found) / len(found):.2f} ({min(found):.2f})"
            cells.append(f"{cell:>{len(trial) + len(reference) + 3}}")
        lines.append(f"{factor_t}, {factor_hw}, {factor_hw}   " + "  ".join(cells))
        print(lines[-1], flush=True)
    name = f"trial_agreement_{args.shape[2]}x{args.shape[3]}.txt"
    (ROOT / "benchmarks" / "results" / name).write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
