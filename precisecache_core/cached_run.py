"""One run of a sampler with LFCache, BlockCache or both."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from .agreement import Agreement
from .blockcache.config import BlockCacheConfig
from .blockcache.run import EVERYWHERE, BlockCacheRun
from .group import ALONE, Group
from .lfcache.call import Call
from .lfcache.config import MINIMUM_STEPS, LFCacheConfig
from .lfcache.latent.parametrization import Parametrization
from .lfcache.run import LFCacheRun
from .lfcache.window import WHOLE_SCHEDULE
from .record.journal import Journal
from .record.reasons import ENOUGH_PAIRS, why_nothing_was_reused, why_trials_are_poor


class CachedRun:
    """Both caches of one sampler run and its journal; make a new one for every run.

    A sampling loop calls `begin` (or `denoised`) where it would call the model. Where a call is computed,
    the loop runs the model by `block_cached(run.blockcache, …)`.

    lfcache: an LFCacheConfig, or None to compute every call and only write the journal.
    blockcache: a BlockCacheConfig or None.
    model: the model's Parametrization. steps: the sampler's number of steps. device: where the model runs.
    sigma_window: (high, low), the noise levels between which reuse is allowed.
    block_start_sigma: the noise level from which blocks may be skipped.
    scale_advice: a warning that says how to get a better scale for alpha; None if there is none.
    name, latent_shape, nodes, sampler: for the report: the model's name, the latent's shape, the ids of the
        nodes that configured this run, and that of the sampler's node.
    expectation: for the report: a sentence on what to expect of this run; None if there is nothing to say.
    group: the ranks that sample the same latent (see `Agreement`); each has a run of its own.
    lfcache_options: further arguments of LFCacheRun.
    """

    def __init__(
        self,
        lfcache: LFCacheConfig | None,
        blockcache: BlockCacheConfig | None,
        model: Parametrization,
        steps: int,
        *,
        device: torch.device | str = "cpu",
        sigma_window: tuple[float, float] = WHOLE_SCHEDULE,
        block_start_sigma: float = EVERYWHERE,
        scale_advice: str | None = None,
        name: str = "model",
        latent_shape: Sequence[int] = (),
        nodes: Sequence[str] = (),
        sampler: str = "",
        expectation: str | None = None,
        group: Group = ALONE,
        **lfcache_options: Any,
    ) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.steps = steps
        self.name = name
        self.latent_shape = list(latent_shape)
        self.nodes = list(nodes)
        self.sampler = sampler
        self.expectation = expectation
        self.journal = Journal(device)
        self.agreement = Agreement(group)
        self.lfcache = LFCacheRun(
            lfcache, model, sigma_window, journal=self.journal, agreement=self.agreement, **lfcache_options
        )
        self.blockcache: BlockCacheRun | None = None
        if blockcache:
            self.blockcache = BlockCacheRun(blockcache, block_start_sigma, self.journal, agreement=self.agreement)
        self._has_lfcache = lfcache is not None
        self._has_scale_advice = scale_advice is not None
        if lfcache is not None and steps < MINIMUM_STEPS:
            self.lfcache.stand_aside(
                f"{steps} steps are too few to skip any (few-step and distilled models gain nothing)"
            )
        if self.blockcache is not None and steps < MINIMUM_STEPS:
            self.blockcache.stand_aside(f"{steps} steps are too few to skip blocks")
        if scale_advice is not None:
            self.journal.warn(scale_advice)

    def begin(self, x: torch.Tensor, sigma: torch.Tensor, with_uncond: bool = False) -> Call:
        """Begin one call; arguments, result and errors are those of `LFCacheRun.begin`."""
        self._begin_blocks(sigma)
        return self.lfcache.begin(x, sigma, with_uncond)

    def denoised(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        model: Callable[[], torch.Tensor],
        trial_model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None],
    ) -> torch.Tensor:
        """One call in a plain loop; arguments, result and errors are those of `LFCacheRun.denoised`."""
        self._begin_blocks(sigma)
        return self.lfcache.denoised(x, sigma, model, trial_model)

    def _begin_blocks(self, sigma: torch.Tensor) -> None:
        if self.blockcache is not None:
            self.blockcache.begin_call(sigma.reshape(-1)[0])

    def sampling(self) -> AbstractContextManager[None]:
        """A context that times the whole run."""
        return self.journal.stopwatch.span("sampling")

    def remarks(self) -> list[str]:
        """Sentences that explain the run so far: why no call was reused, why no block was skipped."""
        reasons = []
        controller, planner = self.lfcache.controller, self.lfcache.planner
        if planner is not None and not self.lfcache.is_standing_aside:
            reasons.append(planner.remark())
        elif controller is not None and not self.lfcache.is_standing_aside:
            reasons.append(why_nothing_was_reused(self.journal.decisions, controller, self._has_scale_advice))
        if self.blockcache is not None:
            reasons.append(self.blockcache.why_nothing_was_skipped())
        return [reason for reason in reasons if reason]

    def end(self) -> None:
        """The run is over: warn of what `remarks` says, and of trials that agree poorly. Reads the device."""
        for remark in self.remarks():
            self.journal.warn(remark)
        # skipped blocks change the computed predictions, so that they say nothing about the trials
        is_telling = not self.lfcache.is_standing_aside and not self.journal.blocks_skipped
        agreement = self.lfcache.trial_agreement(ENOUGH_PAIRS) if is_telling else None
        if poor := why_trials_are_poor(agreement, self.latent_shape, self.lfcache.config):
            self.journal.warn(poor)

    @property
    def standing_aside(self) -> list[str]:
        """Which of `lfcache` and `blockcache` do nothing more in this run."""
        features = {"lfcache": self.lfcache if self._has_lfcache else None, "blockcache": self.blockcache}
        return [name for name, feature in features.items() if feature is not None and feature.is_standing_aside]

    def report(self) -> dict:
        """The report entry of this run as it stands (`record/report.schema.json`); changes nothing.

        Reads the device, so call it after the run.
        """
        journal, controller = self.journal, self.lfcache.controller
        decisions = journal.decisions
        planner = self.lfcache.planner
        speedup = journal.speedup(is_over=True)
        return {
            "run": self.id,
            "nodes": self.nodes,
            "sampler": self.sampler,
            "model": self.name,
            "latent_shape": self.latent_shape,
            "expectation": self.expectation,
            "steps": self.steps,
            "calls": len(decisions),
            "computed": decisions.count("C"),
            "reused": decisions.count("R"),
            "trials": journal.trials,
            "decisions": decisions,
            "reasons": journal.reasons,
            "sigmas": journal.sigmas,
            "lfd": journal.lfds,
            "corrections": journal.corrections,
            "plan": planner.entry() if planner else None,
            "alpha": self.lfcache.config.alpha,
            "delta_max": controller.delta_max if controller else None,
            "threshold": controller.threshold if controller else None,
            "trial_agreement": self.lfcache.trial_agreement(),
            "trial_share": self.lfcache.trial_cost.share,
            "uses_trials": self.lfcache.uses_trials,
            "seconds": self._seconds(),
            "speedup": speedup.ratio if speedup else None,
            "saved_seconds": speedup.saved if speedup else None,
            "cache_bytes": dict(journal.peak_bytes),
            "blockcache": self._blocks(),
            "standing_aside": self.standing_aside,
            "warnings": list(dict.fromkeys([*journal.warnings, *self.remarks()])),
        }

    def _seconds(self) -> dict[str, float | None]:
        stopwatch = self.journal.stopwatch
        calls = stopwatch.seconds("call") if stopwatch.is_exact else None
        return {"calls": calls, **{name: stopwatch.seconds(name) for name in ("sampling", "compute", "trial")}}

    def _blocks(self) -> dict | None:
        if self.blockcache is None:
            return None
        tally = self.blockcache.tally
        return {
            "blocks": len(self.blockcache.order.keys),
            "pivotal": list(tally.pivotal_sets),
            "block_calls": tally.block_calls,
            "block_calls_skipped": tally.block_calls_skipped,
        }

    def release(self) -> None:
        """Drop every tensor, and tell the other ranks that this run is over."""
        self.agreement.end()
        self.lfcache.release()
        if self.blockcache is not None:
            self.blockcache.release()
