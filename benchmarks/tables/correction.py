"""Correction against no correction, sampler by sampler: `python3 run.py bench correction`.

Each sampler runs uncached, and with the same plan with `fitted` and with `corrected`, which is `fitted` with a
corrector. The plan follows from the first latent alone, so that both compute the same calls. Samplers that add noise
get the same noise in every run. "stands aside": the corrector found that the sampler moves the latent by more than
derivatives, and corrected nothing.
"""

import sys

from benchmarks.options import ModelParser
from benchmarks.study import Records, Study, mean, psnr_and_ssim, write_table

SAMPLERS = {
    "one step": ("euler", "ddim", "lcm"),
    "several steps": ("uni_pc", "uni_pc_bh2", "dpmpp_2m", "deis", "res_multistep", "ipndm", "gradient_estimation"),
    "several calls a step": ("heun", "dpm_2", "dpmpp_2s_ancestral", "sa_solver_pece", "seeds_2"),
    "noise": ("euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "er_sde", "sa_solver"),
    "two predictions": ("euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp"),
}
SHARES = (0.4, 0.27)
REUSES = ("fitted", "corrected")


def measure(study, seed, sampler, scheduler):
    """One record: PSNR and computed calls for each share and reuse."""
    bench = study.bench
    bench.ask_for(seed)
    noise = bench.noise(study.shape, seed)

    def sample(model):
        return study.decode(bench.sample(model, sampler, scheduler, study.steps, noise=noise, seed=seed))

    reference, record = (
        sample(study.base),
        {"seed": seed, "sampler": sampler, "psnr": {}, "computed": {}, "corrects": False},
    )
    for share in SHARES:
        for reuse in REUSES:
            model = bench.lfcache(study.base, share=share, reuse=reuse)
            record["psnr"][f"{share:g} {reuse}"] = min(100.0, psnr_and_ssim(reference, sample(model))[0])
            run = bench.report(model)
        record["computed"][f"{share:g}"] = run["computed"] / run["calls"]
        record["corrects"] |= any(run["corrections"])
    return record


def table(records):
    """One line for each sampler, means over the clips."""
    heads = "  ".join(f"{f'share {share:g}':>8}{'fitted':>8}{'corrected':>11}{'gain':>7}" for share in SHARES)
    lines = [f"{'sampler':24}{heads}"]
    for family, samplers in SAMPLERS.items():
        lines += ["", family]
        for sampler in samplers:
            some = [r for r in records if r["sampler"] == sampler]
            if not some:
                continue
            cells = []
            for share in SHARES:
                computed = mean([r["computed"][f"{share:g}"] for r in some])
                without, corrected = (mean([r["psnr"][f"{share:g} {reuse}"] for r in some]) for reuse in REUSES)
                cells.append(f"{computed:9.0%}{without:8.2f}{corrected:11.2f}{corrected - without:+7.2f}")
            aside = "" if any(r["corrects"] for r in some) else "  stands aside"
            lines.append(f"{sampler:24}{'  '.join(cells)}{aside}")
    gains = {
        (sampler, share): mean([gain(r, share) for r in records if r["sampler"] == sampler])
        for sampler in {r["sampler"] for r in records}
        for share in SHARES
    }
    (worst, share), least = min(gains.items(), key=lambda item: item[1])
    return [
        *lines,
        "",
        f"gain over all: mean {mean(gains.values()):+.2f} dB; least {least:+.2f} dB ({worst}, share {share:g})",
    ]


def gain(record, share):
    """How much better the clip of a record is with correction than without, in dB."""
    without, corrected = (record["psnr"][f"{share:g} {reuse}"] for reuse in REUSES)
    return corrected - without


def main():
    parser = ModelParser(__doc__)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--shift", type=float)
    parser.add_argument("--shape", type=int, nargs=5, default=[1, 16, 4, 16, 16])
    parser.add_argument("--scheduler", default="simple")
    parser.add_argument("--fresh", action="store_true", help="measure again what --out already holds")
    args = parser.parse_args()
    study = Study.of(args)
    records = Records(args.out / "correction.jsonl", study, args.fresh)
    for seed in range(args.clips):
        for sampler in (s for family in SAMPLERS.values() for s in family):
            if records.find(seed=seed, sampler=sampler) is None:
                records.add(measure(study, seed, sampler, args.scheduler))
    found = [r for r in records.under_settings() if r["seed"] < args.clips]
    head = study.lines("correction", args.clips)
    write_table(args.out / "correction.txt", [*head, *table(found)])


if __name__ == "__main__":
    sys.exit(main())
