"""What every source of LFDs has: it may ask for a trial, tells the LFD, and learns from computed calls."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..frequency import LowBand
from ..parametrization import Parametrization
from ..trial import Trial

if TYPE_CHECKING:
    from ..config import LFCacheConfig

# name -> class, filled by the classes themselves
SOURCES: "dict[str, type[Source]]" = {}


@dataclass(frozen=True)
class Reading:
    """What a source tells of a call, read from the device at once.

    sigma: the call's noise level. lfd: its LFD to the last computed call; None where it cannot be told.
    is_spoilt: the last computed answer of the model was not finite.
    """

    sigma: float
    lfd: float | None
    is_spoilt: bool = False


class Source:
    """Tells the LFD of the coming calls of one latent signature.

    A subclass says its name, `class Mine(Source, name="mine")`, and overrides `read` and `keep`;
    one that asks the model overrides `trial` too.

    Per call: `trial`, then `read`, then, if the call was computed, `keep`.
    """

    # whether `trial` asks the model: then calls that need no LFD are not asked about
    makes_trials: ClassVar[bool] = False

    def __init_subclass__(cls, name: str | None = None) -> None:
        if name is not None:
            SOURCES[name] = cls

    @classmethod
    def obstacle(cls, config: "LFCacheConfig", model: Parametrization, shape: torch.Size) -> str | None:
        """Why this source cannot work on latents of this shape, or None."""
        return None

    def __init__(self, config: "LFCacheConfig", model: Parametrization, shape: torch.Size, low_band: LowBand) -> None:
        """A source for one run and one latent shape; `low_band` measures LFDs with the run's cutoff."""
        self.low_band = low_band

    def trial(self, x: torch.Tensor, sigma: torch.Tensor) -> Trial | None:
        """What the model has to be asked before `read`; None if nothing.

        x: the noised latent; sigma: its noise level, 0-dim.
        """
        return None

    def read(self, sigma: torch.Tensor, trial: torch.Tensor | None, is_warmup: bool) -> Reading:
        """The call's noise level and LFD, with one device read-back.

        sigma: 0-dim. trial: the trial's prediction at the full sigma, where one was made.
        is_warmup: the call is computed whatever its LFD.
        """
        raise NotImplementedError

    def keep(self, sigma: float, prediction: torch.Tensor, trial: torch.Tensor | None, true_lfd: torch.Tensor,
             is_first: bool) -> None:
        """A call was computed.

        sigma, prediction: its noise level and the model's answer. trial: as of `read`.
        true_lfd: LFD of `prediction` to the call computed before, 0-dim on the device, which may be not
            finite; where `is_first` there is none before, and it says only whether `prediction` is finite.
        """

    def largest(self) -> float | None:
        """The scale for alpha, where the warm-up's own LFDs gave none: the largest LFD known, or None."""
        return None

    @property
    def obstacle_met(self) -> str | None:
        """Why this source has proved useless in mid-run, or None."""
        return None
