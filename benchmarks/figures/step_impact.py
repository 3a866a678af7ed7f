"""How reusing a single call changes the video: `python3 run.py bench step_impact --every 3`.

The paper's Figure 3. For each call of an uncached run in turn, only that call's prediction is
replaced, and the decoded video is compared with the uncached one. The replacement is the
prediction of the call before (a); only its low band (b); only its high band (c); or a forecast by
another reuse strategy from all calls before. The calls before the replaced one are taken from
the uncached run and not computed again.
"""

import math

import torch

from benchmarks.study import COLORS, MARKERS, Records, Study, mean, parser_of, text, write_plot, write_table
from precisecache_core.lfcache.latent.frequency import low_band_weights
from precisecache_core.lfcache.reuse import REUSES

KEY = "one_reused"
TITLES = {"prediction": "the prediction", "low": "its low band", "high": "its high band"}


def low_band(prediction, cutoff):
    """The low band of a prediction (Eq. 2), in its shape; the remainder is the high band."""
    weights = low_band_weights(*prediction.shape[-2:], cutoff, prediction.device)
    spectrum = torch.fft.rfft2(prediction.float(), norm="ortho") * (weights > 0)
    return torch.fft.irfft2(spectrum, s=prediction.shape[-2:], norm="ortho")


def stand_in(recording, index, kind, cutoff):
    """The prediction that replaces the one of call `index` of a recorded run.

    kind: a reuse strategy, or `low` or `high`: that band comes from the prediction before, the other
        band stays the call's own.
    """
    current, before = recording.predictions[index], recording.predictions[index - 1]
    if kind in ("low", "high"):
        band = low_band(before - current, cutoff)
        return current + (band if kind == "low" else before - current - band)
    cache = REUSES[kind]()
    for x, sigma, prediction in zip(recording.x[:index], recording.sigmas, recording.predictions):
        cache.store(x, sigma, prediction)
    return cache.predict(recording.x[index], recording.sigmas[index])


def attach_one_reused(patcher, recording, index, prediction):
    """A clone of the patcher that repeats the recorded run up to call `index`, uses `prediction`
    for that call, and computes from then on."""
    from comfy.patcher_extension import WrappersMP

    calls = iter(range(len(recording.denoised)))

    def predict_noise(executor, x, timestep, model_options=None, seed=None):
        call = next(calls)
        if call < index:
            return recording.denoised[call]
        if call == index:
            a, b = recording.affine(timestep.reshape(-1)[0])
            return a * x + b * prediction
        return executor(x, timestep, model_options, seed)

    patcher = patcher.clone()
    patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise)
    return patcher


def damage(study, seed, kinds, every=1, is_known=lambda kind, call: False):
    """Yield {"seed", "kind", "call", "mse"} for every `every`-th call from the second on."""
    recording, reference = study.record(seed)
    video = study.decode(reference)
    cutoff = study.bench.config().cutoff
    for kind in kinds:
        for call in range(1, len(recording.predictions), every):
            if is_known(kind, call):
                continue
            prediction = stand_in(recording, call, kind, cutoff)
            latent = study.sample(attach_one_reused(study.base, recording, call, prediction), seed)
            yield {
                "seed": seed,
                "kind": kind,
                "call": call,
                "mse": (study.decode(latent) - video).square().mean().item(),
            }


def decibels(mse):
    """PSNR of videos in [0, 1]; inf if nothing differs."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


def curves(records, kind):
    """{seed: [(call, mse)]} of one kind of stand-in."""
    found = {}
    for record in records:
        if record["kind"] == kind:
            found.setdefault(record["seed"], []).append((record["call"], record["mse"]))
    return {seed: sorted(points) for seed, points in sorted(found.items())}


def table(records, kinds):
    """Mean PSNR by call and kind, and how much of the damage is done early."""
    calls = sorted({r["call"] for r in records})
    lines = [
        "PSNR in dB of the video when this call alone is reused, mean over the clips",
        "",
        f"{'call':>4} " + " ".join(f"{kind:>12}" for kind in kinds),
    ]
    for call in calls:
        cells = [
            mean([decibels(r["mse"]) for r in records if (r["kind"], r["call"]) == (kind, call)]) for kind in kinds
        ]
        lines.append(f"{call + 1:4} " + " ".join(f"{text(cell, '.2f'):>12}" for cell in cells))
    lines += ["", f"{'':24}" + " ".join(f"{kind:>12}" for kind in kinds)]
    third = len(calls) // 3 or 1
    for title, some in (("mean MSE, first third", calls[:third]), ("mean MSE, last third", calls[-third:])):
        cells = [mean([r["mse"] for r in records if r["kind"] == kind and r["call"] in some]) for kind in kinds]
        lines.append(f"{title:24}" + " ".join(f"{text(cell, '.2e'):>12}" for cell in cells))
    return lines


def paint(panels, records, kinds):
    """One panel per kind: mean squared error over the calls, one line per clip."""
    for panel in panels[0][1:]:
        panel.sharey(panels[0][0])
    for panel, kind in zip(panels[0], kinds):
        for i, (seed, points) in enumerate(curves(records, kind).items()):
            x, y = zip(*((call + 1, mse) for call, mse in points if mse > 0))
            panel.plot(
                x,
                y,
                color=COLORS[i % len(COLORS)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=4,
                linewidth=1.2,
                label=f"clip {seed}",
            )
        panel.set_yscale("log")
        panel.set_title(f"reusing {TITLES.get(kind, kind)}")
        panel.set_xlabel("reused call")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("MSE of the video")
    panels[0][0].legend(fontsize=9)


def main():
    parser = parser_of(__doc__, clips=4)
    parser.add_argument("--every", type=int, default=1, help="reuse only every N-th call in turn")
    parser.add_argument("--kinds", nargs="+", default=["prediction", "low", "high"], choices=["low", "high", *REUSES])
    args = parser.parse_args()
    study = Study.of(args)
    records = Records(args.out / "step_impact.jsonl", study, args.fresh)
    calls = range(1, args.steps, args.every)
    wanted = [{"seed": s, "kind": k, "call": c} for s in range(args.clips) for k in args.kinds for c in calls]
    for seed in range(args.clips):
        if any(records.find(**key) is None for key in wanted if key["seed"] == seed):
            for record in damage(
                study, seed, args.kinds, args.every, lambda kind, call: records.find(seed=seed, kind=kind, call=call)
            ):
                records.add(record)
    shown = [records.find(**key) for key in wanted]
    write_table(args.out / "step_impact.txt", [*study.lines("step_impact", args.clips), *table(shown, args.kinds)])
    write_plot(args.out / "step_impact.png", lambda panels: paint(panels, shown, args.kinds), columns=len(args.kinds))


if __name__ == "__main__":
    main()
