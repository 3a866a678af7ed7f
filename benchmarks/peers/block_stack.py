"""The model's blocks as one stack that a peer's method may skip, for each guidance branch separately.

It uses the host's `patches_replace["dit"]`, which Wan offers. If all branches of a batch compute,
the block gets its own arguments. If only some do, it gets the rows of those, with options that still
name all branches. A model can have one such method at a time.
"""

import torch

from benchmarks.peers.run_state import attach_run


def attach_stack(patcher, key, new_branch, is_joint=False):
    """A clone of the patcher in which branch objects, such as ReusedStack, decide about the blocks.

    new_branch(model, steps, cond): makes the state of a branch in a run; cond: 0 for cond, 1 for
        uncond, None if joint.
    is_joint: a whole batch is one branch, whatever it holds.
    """

    def open_run(model, options, steps):
        stack = BlockStack(lambda cond: new_branch(model, steps, cond), is_joint)
        dit = options.setdefault("patches_replace", {}).setdefault("dit", {})
        for index in range(len(model.blocks)):
            dit[("double_block", index)] = stack.patch(index, dit.get(("double_block", index)))

    return attach_run(patcher, key, open_run)


class BlockStack:
    """The branches of one run, and the block patches that ask them."""

    def __init__(self, new_branch, is_joint):
        self.new_branch = new_branch
        self.is_joint = is_joint
        self.branches = {}
        self.current = []  # [(branch, rows)] of the pass under way

    def patch(self, index, other):
        """The patch on a block; if another patch is there already, it is called as the original block."""

        def patch(args, extra):
            def original(given):
                return (other(given, extra) if other else extra["original_block"](given))["img"]

            return {"img": self._run_block(index, args, original)}

        return patch

    def _run_block(self, index, args, original):
        img = args["img"]
        if index == 0:
            self._open_pass(args)
        computes = [branch.computes(index) for branch, _ in self.current]
        if all(computes):
            out = original(args)
        else:
            out = torch.empty_like(img)
            taken = [rows for (_, rows), is_computed in zip(self.current, computes) if is_computed]
            if taken:
                rows = torch.cat([torch.arange(len(img), device=img.device)[r] for r in taken])
                out[rows] = original(
                    {
                        name: a[rows] if isinstance(a, torch.Tensor) and len(a) == len(img) else a
                        for name, a in args.items()
                    }
                )
        for (branch, rows), is_computed in zip(self.current, computes):
            if is_computed:
                branch.computed(index, img[rows], out[rows])
            else:
                out[rows] = branch.reused(index, img[rows])
        return out

    def _open_pass(self, args):
        from PreciseCache.nodes.host.blockcache import branches_of

        options, img = args["transformer_options"], args["img"]
        named = branches_of(options, len(img))
        conds = options["cond_or_uncond"]
        if self.is_joint:
            named, conds = [(tuple(name for name, _ in named), slice(None))], [None]
        self.current = []
        for (name, rows), cond in zip(named, conds, strict=True):
            branch = self.branches.get(name)
            if branch is None:
                branch = self.branches[name] = self.new_branch(cond)
            branch.start_call(img[rows], args["vec"][rows])
            self.current.append((branch, rows))


class ReusedStack:
    """A branch that adds the sum of what its blocks added when they were last computed.

    Subclasses set `is_reused`, in `start_call` or in `computed`. first: the first block that
    may be skipped.
    """

    first = 0

    def __init__(self, blocks):
        self.last = blocks - 1
        self.is_reused = False
        self.before = self.residual = None

    def start_call(self, img, vec):
        """A call begins. img: (B, L, C), the input of block 0; vec: its modulation."""

    def computes(self, index):
        return index < self.first or not self.is_reused or self.residual is None

    def computed(self, index, before, after):
        if index == self.first:
            self.before = before
        if index == self.last:
            self.residual, self.before = after - self.before, None

    def reused(self, index, img):
        return img + self.residual if index == self.first else img


def relative_change(current, previous):
    """Mean absolute change over the mean absolute value of `previous`, a float. One read-back."""
    return ((current - previous).abs().mean() / previous.abs().mean()).item()
