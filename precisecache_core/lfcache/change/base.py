"""The base of every source of LFDs: it may make a trial, gives each call's LFD, and sees computed calls."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from ..latent.frequency import LowBand
from ..latent.parametrization import Parametrization
from ..latent.trial import Trial


class Settings(Protocol):
    """What sources read of an LFCacheConfig."""

    @property
    def warmup(self) -> int: ...
    @property
    def reference(self) -> str: ...
    @property
    def factor_t(self) -> int: ...
    @property
    def factor_hw(self) -> int: ...


@dataclass(frozen=True)
class Reading:
    """What a source knows about a call, read from the device at once.

    sigma: the call's noise level. lfd: its LFD to the last computed call, measured or estimated; None if
    it is not known. is_spoilt: whether the last computed prediction was not finite.
    """

    sigma: float
    lfd: float | None
    is_spoilt: bool = False


class Source:
    """Gives the LFD of each call on latents of one signature, before the call is decided.

    A subclass sets `name`, if users can choose it, and overrides `read` and `keep`;
    one that runs the model on small latents overrides `trial` too.

    Order per call: `trial`, then `read`, then `keep` if the call was computed.
    """

    # by which users choose it
    name: ClassVar[str]
    # whether `trial` returns trials; if so, calls that need no LFD are reused without one
    makes_trials: ClassVar[bool] = False

    @classmethod
    def obstacle(cls, config: Settings, model: Parametrization, shape: torch.Size) -> str | None:
        """Why this source cannot work on latents of this shape, or None."""
        return None

    def __init__(self, config: Settings, model: Parametrization, shape: torch.Size, low_band: LowBand) -> None:
        """A source for one run and one latent signature; `low_band` measures LFDs with the run's cutoff."""
        self.low_band = low_band

    def trial(self, x: torch.Tensor, sigma: torch.Tensor) -> Trial | None:
        """The trial that the model has to run before `read`; None if it needs none.

        x: the noised latent, not written to. sigma: its noise level, 0-dim.
        """
        return None

    def read(self, sigma: torch.Tensor, trial: torch.Tensor | None, is_warmup: bool) -> Reading:
        """The call's noise level and LFD, with one device read-back.

        sigma: 0-dim. trial: the trial's prediction at the full sigma; None if no trial was made.
        is_warmup: whether the call is computed whatever its LFD.
        """
        raise NotImplementedError

    def keep(
        self, sigma: float, prediction: torch.Tensor, trial: torch.Tensor | None, true_lfd: torch.Tensor, is_first: bool
    ) -> None:
        """Take the result of a computed call.

        sigma, prediction: its noise level and its prediction. trial: as in `read`.
        true_lfd: LFD of `prediction` to the previous computed call, 0-dim on the device; it may be not finite.
        is_first: there is no previous computed call; `true_lfd` is then 0, or not a number if `prediction`
            is not finite.
        """

    def largest(self) -> float | None:
        """A delta_max for a warm-up that measured no LFD: the largest LFD known, or None."""
        return None

    @property
    def obstacle_met(self) -> str | None:
        """Why this source turned out not to work during the run, or None."""
        return None
