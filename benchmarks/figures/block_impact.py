"""What a skipped block does to the derivative: `python3 run.py bench block_impact --model deep`.

At every `--every`-th call of an uncached run some blocks add what they added a few calls before (`--gaps`), as
BlockCache has them do, and the guided derivative d = (x - denoised) / sigma is compared with the full one. Its error
is given over that of reusing the whole derivative from the same call before: a share of blocks is worth skipping if
its error is far below its share of the blocks. Skipped are: each block alone; the share with the smallest residuals,
which is BlockCache's choice; and the share whose error alone is least, which nobody can know beforehand.
"""

import torch

from benchmarks.figures.block_importance import square
from benchmarks.study import Records, Study, mean, parser_of, write_plot, write_table
from precisecache_core.blockcache.pivotal import skipped_blocks

KEY = "block_impact"
RATES = (0.1, 0.2, 0.4)


class BlockSwap:
    """Keeps what every block added in each call, and lets chosen blocks add what they added in an earlier one.

    A context manager around a run. Calls are counted by `begin`, passes of a block within a call by itself.
    """

    def __init__(self, blocks):
        self.blocks = blocks
        self.calls = []  # of each call: {block: [residual of each pass]}
        self.skipped, self.source, self.passes = (), None, {}

    def __enter__(self):
        self.hooks = [
            b.register_forward_hook(lambda _, given, out, n=n: self._see(n, given[0], out))
            for n, b in enumerate(self.blocks)
        ]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()
        self.calls.clear()

    def begin(self, oldest):
        """A call begins; residuals of calls more than `oldest` before it are dropped."""
        self.calls.append({})
        if len(self.calls) > oldest + 1:
            self.calls[-oldest - 2] = None

    def skip(self, blocks, gap):
        """The next pass of the model has these blocks add what they added `gap` calls before; None ends that."""
        self.skipped, self.passes = blocks or (), {}
        self.source = self.calls[-1 - gap] if blocks else None

    def norms(self):
        """The norm of what each block added in the call."""
        seen = self.calls[-1]
        return [sum(square(r).item() for r in seen[n]) ** 0.5 for n in range(len(self.blocks))]

    def _see(self, number, given, out):
        if self.source is None:
            self.calls[-1].setdefault(number, []).append(out - given)
        elif number in self.skipped:
            turn = self.passes[number] = self.passes.get(number, -1) + 1
            return given + self.source[number][turn]
        return None


def impact(study, seed, gaps, every, is_known):
    """Yield a record for each measured call and gap.

    whole, trend: squared error of the derivative `gap` calls before, and of the line through it and the one 2 gaps
    before. alone: of each block. small, best: of each of RATES, for the blocks with the smallest norms and for those
    whose error alone is least.
    """
    from comfy.patcher_extension import WrappersMP

    found, derivatives = [], []
    oldest = max(gaps)

    def predict_noise(executor, x, timestep, model_options=None, seed=None):
        def derivative():
            denoised = executor(x, timestep, model_options, seed)
            return denoised, (x - denoised) / timestep.reshape(-1)[0]

        call = len(derivatives)
        swap.begin(oldest)
        denoised, d = derivative()
        derivatives.append(d)

        def error(skipped, gap):
            if not skipped:
                return 0.0
            swap.skip(skipped, gap)
            answer = derivative()[1]
            swap.skip(None, gap)
            return square(answer - d).item()

        for gap in gaps:
            if call % every or call < 2 * gap or is_known(call, gap):
                continue
            before, earlier = derivatives[call - gap], derivatives[call - 2 * gap]
            alone = [error([n], gap) for n in range(len(blocks))]
            norms = swap.norms()
            found.append(
                {
                    "call": call,
                    "gap": gap,
                    "whole": square(before - d).item(),
                    "trend": square(2 * before - earlier - d).item(),
                    "alone": alone,
                    "small": [error(skipped_blocks(norms, rate), gap) for rate in RATES],
                    "best": [error(skipped_blocks(alone, rate), gap) for rate in RATES],
                }
            )
        return denoised

    blocks = study.base.model.diffusion_model.blocks
    model = study.base.clone()
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise)
    with BlockSwap(blocks) as swap:
        study.sample(model, seed)
    return found


def relative(record, key):
    """The errors under this key over that of the whole derivative."""
    values = record[key] if isinstance(record[key], list) else [record[key]]
    return [(value / record["whole"]) ** 0.5 for value in values]


def table(records, steps):
    """One line for each gap and third of the schedule, then the blocks by depth."""
    shares = [f"{rate:.0%}" for rate in RATES]
    lines = [
        "error of the derivative over that of reusing all of it from the same call before",
        "",
        f"{'gap':>3} {'calls':>7} {'trend':>6} {'one block':>10}"
        + "".join(f"{f'{s} smallest':>14}" for s in shares)
        + "".join(f"{f'{s} best':>10}" for s in shares),
    ]
    for gap in sorted({r["gap"] for r in records}):
        for third in range(3):
            first, last = steps * third // 3, steps * (third + 1) // 3
            some = [r for r in records if r["gap"] == gap and first <= r["call"] < last]
            if not some:
                continue
            cells = [mean([relative(r, key)[i] for r in some]) for key in ("small", "best") for i in range(len(RATES))]
            count = len(RATES)
            lines.append(
                f"{gap:3} {f'{first + 1}-{last}':>7} {mean([relative(r, 'trend')[0] for r in some]):6.2f} "
                f"{mean([mean(relative(r, 'alone')) for r in some]):10.3f}"
                + "".join(f"{cell:14.2f}" for cell in cells[:count])
                + "".join(f"{cell:10.2f}" for cell in cells[count:])
            )
    alone = torch.tensor([relative(r, "alone") for r in records])
    lines += ["", "each block alone, times the number of blocks (1: as much error as its share of the cost)", ""]
    lines += [f"{'block':>5} {'mean':>6} {'min':>6} {'max':>6}"]
    for n, own in enumerate((alone * alone.shape[1]).T):
        lines.append(f"{n:5} {own.mean():6.2f} {own.min():6.2f} {own.max():6.2f}")
    return lines


def paint(panels, records):
    """A heat map blocks x calls for each gap."""
    for panel, gap in zip(panels[:, 0], sorted({r["gap"] for r in records})):
        some = [r for r in records if r["gap"] == gap]
        calls = sorted({r["call"] for r in some})
        columns = [[relative(r, "alone") for r in some if r["call"] == call] for call in calls]
        values = torch.stack([torch.tensor(c).mean(0) for c in columns], 1)
        values = values * len(values)
        image = panel.imshow(values.numpy(), aspect="auto", origin="lower", cmap="viridis", interpolation="nearest")
        panel.figure.colorbar(image, ax=panel)
        panel.set_title(f"error of one skipped block, {gap} calls old, times the number of blocks (whole call: 1)")
        panel.set_xticks(range(len(calls)), [str(call + 1) for call in calls])
        panel.set_ylabel("block")
    panels[-1, 0].set_xlabel("model call")


def main():
    parser = parser_of(__doc__, clips=2)
    parser.add_argument("--every", type=int, default=5, help="measure only every N-th call")
    parser.add_argument("--gaps", type=int, nargs="+", default=[1, 4], help="how many calls old the residuals are")
    args = parser.parse_args()
    study = Study.of(args)
    records = Records(args.out / "block_impact.jsonl", study, args.fresh)
    for seed in range(args.clips):

        def is_known(call, gap):
            return records.find(seed=seed, call=call, gap=gap) is not None

        calls = [(c, g) for g in args.gaps for c in range(0, args.steps, args.every) if c >= 2 * g]
        if not all(is_known(*call) for call in calls):
            for record in impact(study, seed, args.gaps, args.every, is_known):
                records.add({"seed": seed} | record)
    shown = [r for r in records.under_settings() if r["seed"] < args.clips and r["gap"] in args.gaps]
    write_table(args.out / "block_impact.txt", [*study.lines("block_impact", args.clips), *table(shown, args.steps)])
    write_plot(args.out / "block_impact.png", lambda panels: paint(panels, shown), rows=len(args.gaps), height=3.8)


if __name__ == "__main__":
    main()
