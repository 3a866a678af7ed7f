"""Which blocks are pivotal, and which neighbours can be skipped as one (Eq. 5)."""

import math


def skipped_blocks(scores, cache_rate):
    """The blocks with the smallest score, `cache_rate` of all, as a set of positions.

    scores: one number per block, in the model's order: the norm of its residual
        (paper, Eq. 5). A block whose score is not finite is pivotal, so is the first of
        two equal ones.
    """
    count = math.floor(cache_rate * len(scores) + 1e-9)
    order = sorted((s, -i) for i, s in enumerate(scores) if math.isfinite(s))
    return {-i for _, i in order[:count]}


def runs_of(skipped, segments):
    """Neighbouring skipped blocks as ranges (first, last), both included.

    segments: one label per block; a run does not cross from one segment to another, because
        the streams are joined, split or worked on there.
    """
    runs = []
    for i in sorted(skipped):
        if runs and runs[-1][1] == i - 1 and segments[i] == segments[i - 1]:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs
