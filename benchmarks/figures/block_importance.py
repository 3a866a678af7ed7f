"""What each block adds at each step: `python3 run.py bench block_importance`.

The paper's Figure 6. Uncached runs give: the norm of each block's residual (Eq. 5) over the
largest of its step; the drift, that is how much a residual has changed since the call before, over
its norm; and which blocks BlockCache would skip at its default cache rate if it ranked them at that
call. The other blocks are the pivotal ones.
"""

from functools import partial

import torch

from benchmarks.study import Records, Study, mean, parser_of, write_plot, write_table
from precisecache_core.blockcache.pivotal import skipped_blocks


class BlockWatch:
    """What the blocks of a model add in every call, recorded by hooks; a context manager around a run.

    squares(): (2, blocks, calls), the squared norm of each residual and of its change since the call
        before. The branches of a batch count together, as when BlockCache ranks blocks.
    """

    def __init__(self, blocks):
        self.blocks = blocks
        self.calls = []  # {block: [(squared norm, squared change or None) of each pass]}
        self.before = {}  # (block, number of the pass in its call): residual

    def attach(self, patcher):
        """A clone of the patcher that starts a new record for every call."""
        from comfy.patcher_extension import WrappersMP

        def predict_noise(executor, *args, **kwargs):
            self.calls.append({})
            return executor(*args, **kwargs)

        patcher = patcher.clone()
        patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "block_watch", predict_noise)
        return patcher

    def __enter__(self):
        self.hooks = [
            block.register_forward_hook(partial(self._see, number)) for number, block in enumerate(self.blocks)
        ]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()
        self.before.clear()

    def _see(self, number, block, given, out):
        # in the memory layout of the input, as in BlockCache: the order of summation changes a norm's rounding
        added = torch.sub(out, given[0], out=torch.empty_like(given[0]))
        passes = self.calls[-1].setdefault(number, [])
        key = number, len(passes)
        change = square(added - self.before[key]) if key in self.before else None
        self.before[key] = added
        passes.append((square(added), change))

    def squares(self):
        squares = torch.zeros(2, len(self.blocks), len(self.calls))
        for call, seen in enumerate(self.calls):
            for block, passes in seen.items():
                for size, change in passes:
                    squares[0, block, call] += size
                    squares[1, block, call] += 0 if change is None else change
        return squares


def square(tensor):
    """The squared norm, in float32."""
    return torch.linalg.vector_norm(tensor, dtype=torch.float32).square()


def norms(study, seed):
    """{"seed", "norms": of each block's residual in each call, "drift": of each from the second call on}.

    Both are [block][call]; the guidance branches of a call count together, as BlockCache ranks them.
    """
    with BlockWatch(study.base.model.diffusion_model.blocks) as watch:
        study.sample(watch.attach(study.base), seed)
    size, change = watch.squares().sqrt()
    return {"seed": seed, "norms": size.tolist(), "drift": (change / size)[:, 1:].tolist()}


def over_largest(norms):
    """Norms, (clips, blocks, calls), over the largest of their clip and call."""
    return norms / norms.amax(1, keepdim=True)


def skipped_cells(norms, cache_rate):
    """The share of the clips in which a block would be skipped if ranked at that call, (blocks, calls)."""
    found = torch.zeros(norms.shape[1:])
    for clip in norms:
        for call in range(clip.shape[1]):
            for block in skipped_blocks(clip[:, call].tolist(), cache_rate):
                found[block, call] += 1 / len(norms)
    return found


def table(norms, drift, cache_rate):
    """One line per block, then how unequal and how steady the blocks are."""
    relative, skipped = over_largest(norms), skipped_cells(norms, cache_rate)
    of_pivotal, of_others = (kind_mean(drift, skipped, is_skipped) for is_skipped in (False, True))
    lines = [
        f"{'block':>5} {'norm over largest of its step':>31} {'drift':>22} {'pivotal at':>11}",
        f"{'':5} {'mean':>15} {'min':>7} {'max':>7} {'mean':>8} {'min':>6} {'max':>6} {f'{cache_rate:.0%}':>10}",
    ]
    for block in range(norms.shape[1]):
        own, change = relative[:, block], drift[:, block]
        lines.append(
            f"{block:5} {own.mean():15.3f} {own.min():7.3f} {own.max():7.3f} {change.mean():8.3f} "
            f"{change.min():6.3f} {change.max():6.3f} {1 - skipped[block].mean():10.0%}"
        )
    steady = int(((skipped.mean(1) == 0) | (skipped.mean(1) == 1)).sum())
    small = (relative < 0.1).float().mean()
    return [
        *lines,
        "",
        "pivotal at: share of the steps and clips in which the block is not among the "
        f"{cache_rate:.0%} with the smallest norm",
        f"{steady} of {norms.shape[1]} blocks are always or never pivotal; {small:.0%} of all residuals are below "
        "a tenth of their step's largest",
        f"median norm over the largest: {relative.median():.3f}; mean drift from call to call: {drift.mean():.3f} "
        f"(pivotal blocks {of_pivotal:.3f}, the others {of_others:.3f})",
    ]


def kind_mean(drift, skipped, is_skipped):
    """Mean drift of the blocks that most clips skip at a call, or of the others."""
    where = (skipped[:, 1:] >= 0.5) == is_skipped
    return mean([d[where].mean().item() for d in drift])


def paint(panels, norms, drift, cache_rate):
    """Heat maps blocks x steps: relative norm with the skipped blocks dotted, and drift."""
    skipped = skipped_cells(norms, cache_rate)
    maps = (
        (
            over_largest(norms).mean(0),
            1,
            f"norm of a block's residual over the largest of its step; dots: skipped at {cache_rate:.0%}",
            {"vmin": 0, "vmax": 1},
        ),
        (
            drift.mean(0),
            2,
            "drift: change of a residual since the call before, over its norm",
            {"vmin": 0, "vmax": drift.mean(0).quantile(0.98).item()},
        ),
    )
    for panel, (values, first, title, limits) in zip(panels[:, 0], maps):
        blocks, calls = values.shape
        image = panel.imshow(
            values.numpy(),
            aspect="auto",
            origin="lower",
            cmap="viridis",
            interpolation="nearest",
            extent=(first - 0.5, first + calls - 0.5, -0.5, blocks - 0.5),
            **limits,
        )
        panel.figure.colorbar(image, ax=panel)
        panel.set_title(title)
        panel.set_ylabel("block")
        panel.set_yticks(range(0, blocks, 2))
        panel.set_xlim(0.5, norms.shape[2] + 0.5)
    block, call = torch.nonzero(skipped >= 0.5, as_tuple=True)
    # white dots with a black rim are visible on every colour of the map
    panels[0, 0].scatter(call + 1, block, s=14, color="white", edgecolors="black", linewidths=0.8)
    panels[-1, 0].set_xlabel("model call")


def main():
    args = parser_of(__doc__).parse_args()
    study = Study.of(args)
    records = Records(args.out / "block_importance.jsonl", study, args.fresh)
    shown = [records.find(seed=seed) or records.add(norms(study, seed)) for seed in range(args.clips)]
    size, drift = (torch.tensor([r[key] for r in shown]) for key in ("norms", "drift"))
    rate = study.bench.block_config().cache_rate
    write_table(
        args.out / "block_importance.txt", [*study.lines("block_importance", args.clips), *table(size, drift, rate)]
    )
    write_plot(args.out / "block_importance.png", lambda panels: paint(panels, size, drift, rate), rows=2, height=3.8)


if __name__ == "__main__":
    main()
