"""One sampler run in the host: its calls, its blocks, its events and its report."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import comfy.model_management
import torch

from ...precisecache_core.blockcache.run import EVERYWHERE
from ...precisecache_core.cached_run import CachedRun
from ...precisecache_core.lfcache.config import MINIMUM_STEPS
from ...precisecache_core.record.report import summary_line
from . import reports
from .calibration import Calibration
from .conditioning import boundaries_of
from .events import CallFeed, Page
from .few_steps import what_to_expect
from .obstacles import reason_against_trials, reason_to_stand_aside
from .other_cache import OtherCache
from .parametrization import parametrization_of, part_of_schedule, sigma_window
from .prompt import Prompt
from .residency import streamed_share
from .trials import TrialGuider, conds_of
from .unconditional import UnconditionalFeed, functions_of_sampler

logger = logging.getLogger("precisecache")

# runs the guider on the full latent with these model options
Compute = Callable[[dict], torch.Tensor]


class SamplerRun:
    """One run of a guider: its CachedRun, and what connects the two.

    attachment: the Attachment on the guider's model.
    sigmas: the schedule, one more than its steps. noise, denoise_mask, latent_shapes: arguments of the
    guider's `outer_sample`.
    """

    def __init__(
        self,
        attachment: Any,
        guider: Any,
        noise: torch.Tensor,
        sigmas: torch.Tensor,
        denoise_mask: Any,
        latent_shapes: Any,
    ) -> None:
        self.attachment = attachment
        self.guider = guider
        self.trials = TrialGuider(guider)
        self.unconditional = UnconditionalFeed()
        self.other = OtherCache.of(guider)
        page = Page.of(list(attachment.nodes.values()))
        self.cached = self._cached_run(noise, sigmas, denoise_mask, latent_shapes, page)
        self.feed = CallFeed(self.cached, page)

    def _cached_run(
        self, noise: torch.Tensor, sigmas: torch.Tensor, denoise_mask: Any, latent_shapes: Any, page: Page
    ) -> CachedRun:
        steps = len(sigmas) - 1
        config, block_config = self.attachment.lfcache, self.attachment.blockcache
        patcher = self.guider.model_patcher
        sampling = patcher.get_model_object("model_sampling")
        model = parametrization_of(patcher.model, sampling)
        obstacle = trial_obstacle = delta_max = advice = few = None
        if config:
            part = part_of_schedule(sampling, sigmas)
            config = config.for_part(part)
            few = what_to_expect(config, steps, part, Prompt.current())
            obstacle = reason_to_stand_aside(self.guider)
            trial_obstacle = reason_against_trials(config, patcher.model, model, denoise_mask, latent_shapes)
            if not obstacle and steps >= MINIMUM_STEPS and config.share is None:
                calibration = Calibration(self.attachment, noise)
                if calibration.has_lost_trials:
                    trial_obstacle = trial_obstacle or "the earlier sampler gave up its trials"
                delta_max, advice = calibration.delta_max(config, model.patch, may_try=not trial_obstacle)
        window = (config.start_percent, config.end_percent) if config else (0.0, 1.0)
        start = block_config.start_percent if block_config else 0.0
        run = CachedRun(
            config,
            block_config,
            model,
            steps,
            device=patcher.load_device,
            sigma_window=sigma_window(sampling, *window),
            block_start_sigma=sampling.percent_to_sigma(start) if start > 0 else EVERYWHERE,
            delta_max=delta_max,
            schedule=sigmas.tolist(),
            scale_advice=advice,
            name=type(patcher.model).__name__,
            latent_shape=noise.shape,
            nodes=page.nodes,
            sampler=page.sampler,
            expectation=few if not obstacle else None,
            group=self.attachment.group,
        )
        if run.expectation:
            logger.info("PreciseCache: %s", run.expectation)
        run.journal.is_alone = self.other is None
        for remark in self.attachment.remarks:
            run.journal.warn(remark)
        if obstacle and not run.lfcache.is_standing_aside:
            run.lfcache.stand_aside(obstacle)
        elif trial_obstacle and not run.lfcache.is_standing_aside:
            run.lfcache.do_without_trials(trial_obstacle)
        return run

    def denoised(
        self, x: torch.Tensor, timestep: torch.Tensor, model_options: dict, seed: int | None, compute: Compute
    ) -> torch.Tensor:
        """The denoised latent of one call, computed or reused, in x's shape.

        x: the noised latent, not written to. timestep: its noise level (the host's name for sigma), (B,).
        model_options, seed: arguments of the guider's `predict_noise`. compute: runs the guider on x.
        """
        run = self.cached
        if not run.journal.calls:  # the guider has processed its conds by now, not earlier
            run.lfcache.boundaries = boundaries_of(conds_of(self.guider))
        run.lfcache.trial_cost.streamed = streamed_share(self.guider.model_patcher)
        functions = functions_of_sampler(model_options, self.guider)
        call = run.begin(x, timestep, with_uncond=bool(functions))
        while call.trial is not None:
            call.observe(self.trials.ask(run.lfcache, call.trial, x, timestep, model_options, seed))
        if call.is_reused:
            denoised, uncond = call.reused()
            if not functions:
                return denoised
            try:
                return self.unconditional.feed_reused(functions, x, timestep, model_options, denoised, uncond)
            except KeyError as error:
                run.lfcache.stand_aside(f"this sampler reads {error}, which a reused call does not have")
        if not functions or run.lfcache.is_standing_aside:
            return call.finish(compute(model_options))
        denoised = compute(self.unconditional.holding_back(model_options, functions))
        uncond = self.unconditional.uncond
        if uncond is None:
            run.lfcache.stand_aside("this sampler reads an unconditional prediction that the guider does not compute")
        denoised = call.finish(denoised, uncond)
        return self.unconditional.feed_computed(functions, model_options, denoised, call.uncond)

    def watching_other_cache(self) -> AbstractContextManager[None]:
        """A context for one call, in which the calls that another step cache reuses are counted."""
        return self.other.call(self.guider) if self.other else nullcontext()

    def _other_entry(self) -> dict | None:
        if self.other is None:
            return None
        self.other.look(self.guider)
        return self.other.entry(len(self.cached.journal.calls))

    def _label(self) -> str:
        """The caches of this run in a few words; LFCache stands aside for another step cache."""
        labels = [text for kind, text in self.attachment.labels.items() if kind != "lfcache" or self.other is None]
        return " + ".join(labels + ([self.other.label] if self.other else [])) or "uncached"

    def note_early_end(self, error: BaseException) -> None:
        """Record in the report that the run was interrupted or failed."""
        is_interrupted = isinstance(error, comfy.model_management.InterruptProcessingException)
        how = "was interrupted" if is_interrupted else f"failed with {type(error).__name__}"
        self.cached.journal.warn(f"the run {how} after {len(self.cached.journal.calls)} calls")

    def close(self) -> None:
        """Write the report and drop every tensor; called at the end of every run, also of a failed one."""
        try:
            self.cached.end()
            entry = self.cached.report() | {"label": self._label(), "other_cache": self._other_entry()}
            reports.record(self.attachment.id, entry)
            self.feed.tell(is_ended=True)
            logger.info("PreciseCache: %s", summary_line(entry))
        except Exception:  # an error in the report must not lose the sampler's result
            logger.warning("PreciseCache: the report of this run could not be written", exc_info=True)
        finally:
            self.cached.release()
            del self.guider, self.trials, self.unconditional  # a traceback may keep this object alive for long
