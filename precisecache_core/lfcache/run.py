"""LFCache over one sampling run: it begins calls and, if it has to, stands aside."""

from collections.abc import Callable, Sequence

import torch

from ..agreement import Agreement
from ..memory import raise_unless_out_of_memory
from ..record.journal import CallRecord, Journal
from .call import Call
from .change import SOURCES
from .config import LFCacheConfig
from .controller import LFCacheController
from .latent.parametrization import Parametrization
from .plan.levels import forced_levels, levels_left
from .plan.planner import Planner
from .reuse import REUSES
from .stage import Stage
from .trial_cost import TrialCost
from .window import WHOLE_SCHEDULE, crosses


class LFCacheRun:
    """LFCache for one run of a sampler; make a new one for every run.

    Where the sampler would call the model:

        call = run.begin(x, sigma)
        while call.trial is not None:
            call.observe(denoise(call.trial.x, call.trial.sigma))
        if call.is_reused:
            denoised, _ = call.reused()
        else:
            denoised = call.finish(denoise(x, sigma))

    `denoised` does exactly this for plain loops.

    config: an LFCacheConfig, or None to compute every call and only write the journal.
    model: the model's Parametrization.
    sigma_window: (high, low), the noise levels between which reuse is allowed.
    boundaries: noise levels at which an input other than the latent changes (the range of a prompt or
        of a ControlNet, a keyframe of a LoRA). A prediction is never reused across a boundary.
    journal: where the run records its calls; a new one if None.
    delta_max: carried over from an earlier sampler; replaces the warm-up (see `controller`).
    schedule: the noise levels of the sampler's steps, falling, with the one at which the run ends, if they are known.
        Calls are planned over them (see LFCacheConfig.share); what correction takes back, it takes back until the end.
    agreement: with the other ranks that sample the same latent; by default there are none.

    Where no trial can be made, or trials take too much time (see `TrialCost`), LFDs are extrapolated from the
    computed calls.
    """

    def __init__(
        self,
        config: LFCacheConfig | None,
        model: Parametrization,
        sigma_window: tuple[float, float] = WHOLE_SCHEDULE,
        boundaries: Sequence[float] = (),
        journal: Journal | None = None,
        delta_max: float | None = None,
        schedule: Sequence[float] | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        self.config = config or LFCacheConfig(alpha=0.0)
        derivatives = model.in_derivatives() if REUSES[self.config.reuse].is_corrected else None
        self.model = derivatives or model
        self.is_corrected = derivatives is not None
        self.schedule = list(schedule or ())
        self.sigma_window = sigma_window
        self.boundaries = boundaries
        self.journal = journal or Journal()
        self.trial_cost = TrialCost(self.journal)
        self.is_standing_aside = config is None
        self._stage: Stage | None = None
        self._delta_max = delta_max
        self._may_try = True
        self.agreement = agreement or Agreement()
        self.agreement.on_wish("lfcache", self._stand_aside)
        self.agreement.on_wish("trials", self._do_without_trials)

    @property
    def stage(self) -> Stage:
        """The stage of the latent being sampled. Raises RuntimeError before the first call that may be reused."""
        if self._stage is None:
            raise RuntimeError("PreciseCache: this run has no stage yet. Begin a call first.")
        return self._stage

    @property
    def controller(self) -> LFCacheController | None:
        """That of the current stage; None before the first call that may be reused."""
        return self._stage.controller if self._stage else None

    @property
    def planner(self) -> Planner | None:
        """The planner of the current stage; None before the first call, or if alpha decides."""
        return self._stage.planner if self._stage else None

    @property
    def threshold(self) -> float | None:
        """What the accumulated LFD must stay below; None while it is not known."""
        return self.controller.threshold if self.controller else None

    @property
    def uses_trials(self) -> bool:
        """Whether the LFDs and `delta_max` are those of trials; False before the first call that may be reused."""
        is_possible = self._may_try and SOURCES[self.config.trial].makes_trials
        return is_possible and self._stage is not None and self._stage.obstacle is None

    def trial_agreement(self, at_least: int = 4) -> float | None:
        """That of `Stage`, or None; reads the device, so call it after the run."""
        return self._stage.trial_agreement(at_least) if self._stage else None

    @property
    def cache_bytes(self) -> int:
        """Bytes of predictions kept now."""
        return self._stage.predictions.nbytes if self._stage else 0

    def begin(self, x: torch.Tensor, sigma: torch.Tensor, with_uncond: bool = False) -> Call:
        """Begin one call.

        x: noised latent, (B, C, T, H, W) or (B, C, H, W), any float dtype; never written to. Other shapes
            are cached without trials.
        sigma: its noise level, a tensor whose elements are all equal.
        with_uncond: whether the sampler reads the unconditional prediction too (see `Call.finish`).
        Reads the device once per call; once more if `sigma_window` is not the whole schedule, and once
        more after a computed call if there are no trials.
        """
        if not self.is_standing_aside:
            if self._stage is None or not self._stage.matches(x):
                self._enter_stage(x, sigma.reshape(-1)[0])
            self._weigh_trials()
        return Call(self, x, sigma.reshape(-1)[0], with_uncond)

    def denoised(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        model: Callable[[], torch.Tensor],
        trial_model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None],
    ) -> torch.Tensor:
        """The denoised latent of one call, computed by `model` or made from the cache.

        x, sigma: as in `begin`. model(): computes the full call; returns the denoised latent in x's shape.
        trial_model(x, sigma): runs the same guided model on a small latent; returns its denoised latent, or
            None if the model cannot run on it.
        Errors of either pass through, except that a trial without enough memory ends the trials.
        """
        call = self.begin(x, sigma)
        while call.trial is not None:
            small = None
            try:
                small = trial_model(call.trial.x, call.trial.sigma)
            except (RuntimeError, MemoryError) as error:
                self.give_up_trials(error)
            call.observe(small)
        return call.reused()[0] if call.is_reused else call.finish(model())

    def _enter_stage(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        if self._stage is not None:
            self.journal.warn("the latent changed during the run: the warm-up starts again")
        levels: list[float] = []
        if self.config.share:
            levels = levels_left(self.schedule, None if self._stage is None else sigma.item())
            if not levels:
                self.journal.warn(
                    "no schedule of falling noise levels is known: reuse is decided by alpha, not by share"
                )
            if levels and self._may_try and self.trial_cost.is_streamed:
                self.do_without_trials(f"{self.trial_cost.streamed_text}, which makes trials slow")
        self._stage = Stage(
            self.config,
            self.model,
            x,
            self._delta_max,
            self._may_try,
            self.schedule,
            levels,
            forced_levels(levels, self.sigma_window, self.boundaries),
            self.agreement,
        )
        self._delta_max = None
        if self._stage.obstacle is not None:
            how = "planned" if self._stage.planner else "decided"
            self.journal.warn(f"{self._stage.obstacle}: reuse is {how} without trials")

    def _weigh_trials(self) -> None:
        """After the warm-up, end the trials if they take too much time, unless the settings ask for every one.

        A run with a carried-over delta_max has no warm-up and goes on as the earlier one did, in the trials' scale.
        """
        controller = self.stage.controller
        if not self.uses_trials or controller.is_warmup or not controller.warmup:
            return
        objection = self.trial_cost.objection()
        if objection and (self.config.try_every_call or self.config.alpha == 0):  # as in the paper, or only measuring
            self.journal.warn(f"{objection}: trials are made all the same, because the settings ask for them")
        elif objection:
            self.do_without_trials(objection)

    def record(self, call: CallRecord) -> None:
        """Record a call that has ended."""
        self.journal.add(call)
        if self._stage is not None:
            self._stage.calls.append(call)

    def is_beyond_boundary(self, sigma: float) -> bool:
        """Whether a boundary lies between the last computed call and this noise level."""
        last = self.stage.predictions.sigma
        return last is not None and crosses(self.boundaries, sigma, last)

    def do_without_trials(self, reason: str) -> None:
        """From now on, or from when all ranks know it, extrapolate LFDs from the computed calls; warn once why."""
        self.agreement.wish("trials", reason)

    def _do_without_trials(self, reason: str) -> None:
        is_already = self._stage.source is self._stage.computed_calls if self._stage else not self._may_try
        self._may_try = False
        if not is_already and not self.is_standing_aside:
            if self._stage is not None:
                self._stage.do_without_trials()
            how = "planned" if self.config.share else "decided"
            self.journal.warn(f"{reason}: reuse is {how} without trials")

    def give_up_trials(self, error: Exception) -> None:
        """Handle an error of a trial: do without trials if memory ran out, otherwise raise the error again."""
        raise_unless_out_of_memory(error)
        self.do_without_trials("no memory for a trial")

    def stand_aside(self, reason: str) -> None:
        """Compute every further call as if LFCache were not there, from when all ranks know it; warn why."""
        self.agreement.wish("lfcache", reason)
        if not self.is_standing_aside and self._stage is not None:
            self._stage.forget_predictions()

    def _stand_aside(self, reason: str) -> None:
        if not self.is_standing_aside:
            self.is_standing_aside = True
            self.release()
            self.journal.warn(f"{reason}: computing every call")

    def release(self) -> None:
        """Drop every prediction, because a traceback may keep this object alive for long."""
        if self._stage is not None:
            self._stage.release()
