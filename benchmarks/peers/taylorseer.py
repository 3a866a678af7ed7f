"""TaylorSeer: compute every N-th call, and forecast the features of the calls between.

Source: arXiv 2503.06923; github.com/Shenyi-Z/TaylorSeer (288776d, TaylorSeer-Wan2.1). This is an
implementation of our own, written after reading it.

Rule of the source: the first `first` calls are computed, then every `interval`-th. A computed
call keeps each feature and its backward differences up to `order`. The i-th difference is the
(i-1)-th minus that of the previous computed call, over the number of calls between the two;
differences start with the last of the first calls. k calls later, the feature is the sum over i of
the i-th difference times k^i / i!. That is a Taylor series with backward differences in place of
derivatives. It is exact for a line, but the forecast of a parabola is too small by
interval * k * (half its second derivative).

Features: "modules", the outputs of self-attention, cross-attention and feed-forward layers before
their gates, as in TaylorSeer-Wan2.1; "block", the residual of a whole block.

Departures: `first` is 3 as in TaylorSeer-FLUX (it is 1 in TaylorSeer-Wan2.1, whose first forecasts
therefore have no difference to use); the feature "block" is ours.
"""

import math
from dataclasses import dataclass

from benchmarks.peers.module_outputs import MODULES, attach_modules

FEATURES = {"modules": MODULES, "block": ("block",)}


class Feature:
    """A feature at its last computed call, and its differences."""

    def __init__(self, order):
        self.order = order
        self.differences = []
        self.call = None

    def update(self, value, call, is_differenced=True):
        """value: a tensor, which may be kept, or a number. Without is_differenced, earlier values are dropped."""
        differences = [value]
        for before in self.differences[: self.order] if is_differenced else ():
            differences.append((differences[-1] - before) / (call - self.call))
        self.differences, self.call = differences, call

    def forecast(self, call):
        return sum(d * ((call - self.call) ** i / math.factorial(i)) for i, d in enumerate(self.differences))


@dataclass
class TaylorSeer:
    """The features of one composition of the batch in one run."""

    interval: int
    order: int
    first: int

    def __post_init__(self):
        self.call = -1
        self.forecasts = 0  # since the last computed call
        self.features = {}

    def start_call(self, sigma=None):
        self.call += 1
        self.is_computed = self.call < self.first or self.forecasts == self.interval - 1
        self.forecasts = 0 if self.is_computed else self.forecasts + 1

    def run_block(self, key, streams, compute):
        base = streams["x"] if key[0] == "block" else 0
        feature = self.features.setdefault(key, Feature(self.order))
        if not self.is_computed:
            return {"x": base + feature.forecast(self.call)}
        result = compute()
        feature.update(result["x"] - base, self.call, is_differenced=self.call > self.first - 2)
        return result


def attach_taylorseer(patcher, interval, order=1, first=3, features="modules"):
    """A clone of the patcher with TaylorSeer."""
    return attach_modules(patcher, "taylorseer", lambda: TaylorSeer(interval, order, first), FEATURES[features])
