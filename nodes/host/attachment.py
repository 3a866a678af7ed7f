"""What this pack hangs on a MODEL, and the state of each of its sampler runs."""

import logging
import uuid

import comfy.model_management
import comfy.model_patcher
from comfy.patcher_extension import WrappersMP

from ...precisecache_core.record.report import summary_line
from . import reports
from .blockcache import GuidedBlocks
from .calibration import Calibration
from .events import CallFeed
from .lfcache import GuidedRun

KEY = "precisecache"

logger = logging.getLogger("precisecache")


class Attachment:
    """Settings of LFCache, of BlockCache or of both on a patcher, and the wrappers that use them.

    Immutable, shared by clones of the patcher. `id` names it in the report store, `nodes` are
    the ids of the nodes that made it, {"lfcache" or "blockcache": id}, the last one at the end.
    `earlier` is the Attachment of the sampler before, whose calibration LFCache takes over, or None.
    """

    def __init__(self, nodes, lfcache=None, blockcache=None, earlier=None):
        self.nodes = nodes
        self.lfcache = lfcache
        self.blockcache = blockcache
        self.earlier = earlier
        self.id = uuid.uuid4().hex

    def outer_sample(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        """OUTER_SAMPLE: one run. State goes into the guider's options and leaves with them."""
        guider = executor.class_obj
        original = guider.model_options
        run = SamplerRun(self, guider, noise, len(sigmas) - 1, args, kwargs)
        guider.model_options = comfy.model_patcher.create_model_options_clone(original)
        guider.model_options.setdefault("transformer_options", {})[KEY] = run
        try:
            with run.steps.cache.sampling():
                return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        except BaseException as error:
            run.note_early_end(error)
            raise
        finally:
            guider.model_options = original
            run.close(self.id, noise.shape)

    def predict_noise(self, executor, x, timestep, model_options={}, seed=None):
        """PREDICT_NOISE: one call, computed or reused."""
        run = executor.class_obj.model_options.get("transformer_options", {}).get(KEY)
        if run is None:
            return executor(x, timestep, model_options, seed)

        def compute(options):
            if run.blocks is not None:
                run.blocks.begin_call(timestep)
            return executor(x, timestep, options, seed)

        denoised = run.steps.denoised(x, timestep, model_options, seed, compute)
        run.tell()
        return denoised

    def apply_model(self, executor, *args, **kwargs):
        """APPLY_MODEL: one pass through the blocks."""
        for options in (kwargs.get("transformer_options"), *args):
            if isinstance(options, dict) and isinstance(options.get(KEY), SamplerRun):
                return options[KEY].blocks.run_pass(executor, options, args, kwargs)
        return executor(*args, **kwargs)


def attach(patcher, node_id=None, **configs):
    """A clone of the patcher with `lfcache=` or `blockcache=` settings beside those it has.

    node_id: of the node that asks. `earlier=` goes with `lfcache=`. Attaching one kind again
    replaces its settings.
    Raises ValueError if `patcher` is not a diffusion model's.
    """
    if not hasattr(getattr(patcher, "model", None), "model_sampling"):
        raise ValueError(f"PreciseCache: model must be a diffusion model, got {type(patcher).__name__}. "
                         "Connect the MODEL output of a loader.")
    before = attachment_of(patcher)
    nodes = {} if before is None else {kind: node for kind, node in before.nodes.items() if kind not in configs}
    if node_id is not None:
        nodes |= {kind: node_id for kind in configs if kind != "earlier"}
    if before is not None:
        configs = {"lfcache": before.lfcache, "blockcache": before.blockcache, "earlier": before.earlier, **configs}
    attachment = Attachment(nodes, **configs)
    patcher = patcher.clone()
    wrappers = {WrappersMP.OUTER_SAMPLE: attachment.outer_sample,
                WrappersMP.PREDICT_NOISE: attachment.predict_noise}
    if attachment.blockcache is not None:
        wrappers[WrappersMP.APPLY_MODEL] = attachment.apply_model
    for kind, wrapper in wrappers.items():
        patcher.remove_wrappers_with_key(kind, KEY)
        patcher.add_wrapper_with_key(kind, KEY, wrapper)
    return patcher


def attachment_of(patcher):
    """The Attachment on a patcher, or None."""
    for wrapper in patcher.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        return wrapper.__self__
    return None


class SamplerRun:
    """The state of one sampler run: its steps (LFCache, or only the record) and its blocks."""

    def __init__(self, attachment, guider, noise, steps, args, kwargs):
        self.count = steps
        self.model_name = type(guider.model_patcher.model).__name__
        self.steps = GuidedRun(attachment.lfcache, guider, steps, args, kwargs,
                               Calibration(attachment, noise))
        self.blocks = attachment.blockcache and GuidedBlocks(attachment.blockcache, guider, steps)
        self.feed = CallFeed(list(attachment.nodes.values()), self.model_name, steps)

    def tell(self, is_ended=False):
        """Let the page know of the calls made."""
        blocks = self.blocks and self.blocks.cache
        peak = self.steps.cache.peak_bytes + (blocks.peak_bytes if blocks else 0)
        self.feed.tell(self.steps.cache, blocks, peak, is_ended)

    def note_early_end(self, error):
        """Write into the report that the run was interrupted or failed."""
        is_interrupted = isinstance(error, comfy.model_management.InterruptProcessingException)
        how = "was interrupted" if is_interrupted else f"failed with {type(error).__name__}"
        self.steps.cache.warn(f"the run {how} after {len(self.steps.cache.decisions)} calls")

    def close(self, attachment_id, shape):
        """Write the report and let go of every tensor; called however the run ended."""
        try:
            with self.feed.timed():
                entry = self.steps.report(self.model_name, shape, self.count)
                entry |= {"run": self.feed.run, "nodes": self.feed.nodes}
                if self.blocks is not None:
                    self.blocks.cache.add_to(entry)
                reports.record(attachment_id, entry)
            self.tell(is_ended=True)
            logger.info("PreciseCache: %s", summary_line(entry))
        except Exception:  # the sampler's result must not be lost for want of a report
            logger.warning("PreciseCache: this run has no report", exc_info=True)
        finally:
            if self.blocks is not None:
                self.blocks.release()
            self.steps.release()
