"""What this pack attaches to a MODEL: settings, and the wrappers that use them."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_patcher
from comfy.patcher_extension import WrappersMP

from ...precisecache_core.blockcache.config import BlockCacheConfig
from ...precisecache_core.group import ALONE, Group
from ...precisecache_core.lfcache.config import LFCacheConfig
from .blockcache import run_pass
from .sampler_run import SamplerRun

KEY = "precisecache"
TITLES = {"lfcache": "PreciseCache LFCache", "blockcache": "PreciseCache BlockCache"}
_NO_OPTIONS: dict = {}  # as the host's own default; nobody writes to it


class Attachment:
    """Settings of LFCache, of BlockCache or of both on a patcher, and the wrappers that use them.

    Immutable, and shared by clones of the patcher. `id` is its key in the report store.

    nodes: ids of the nodes that made it, {"lfcache" or "blockcache": id}, the last attached at the end.
    earlier: the Attachment of an earlier sampler, whose delta_max LFCache uses (see `Calibration`), or None.
    is_companion: whether the settings of BlockCache came with LFCache's, not from a node of their own.
    remarks: sentences about how the nodes are connected, for the report's warnings.
    labels: the settings in a word or two, {"lfcache" or "blockcache": "LFCache base"}, for those that are used.
    group: the ranks that sample the same latent.
    """

    def __init__(
        self,
        nodes: dict[str, str],
        lfcache: LFCacheConfig | None = None,
        blockcache: BlockCacheConfig | None = None,
        earlier: "Attachment | None" = None,
        is_companion: bool = False,
        remarks: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        group: Group = ALONE,
    ) -> None:
        self.group = group
        self.nodes = nodes
        self.lfcache = lfcache
        self.blockcache = blockcache
        self.earlier = earlier
        self.is_companion = is_companion
        self.remarks = remarks
        self.labels = labels or {}
        self.id = uuid.uuid4().hex

    def outer_sample(
        self,
        executor: Any,
        noise: Any,
        latent_image: Any,
        sampler: Any,
        sigmas: Any,
        denoise_mask: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """OUTER_SAMPLE wrapper: one run. The run's state is in the guider's model options until it ends."""
        guider = executor.class_obj
        original = guider.model_options
        run = SamplerRun(self, guider, noise, sigmas, denoise_mask, kwargs.get("latent_shapes"))
        guider.model_options = comfy.model_patcher.create_model_options_clone(original)
        guider.model_options.setdefault("transformer_options", {})[KEY] = run
        try:
            with run.cached.sampling():
                return executor(noise, latent_image, sampler, sigmas, denoise_mask, *args, **kwargs)
        except BaseException as error:
            run.note_early_end(error)
            raise
        finally:
            guider.model_options = original
            run.close()

    def predict_noise(
        self, executor: Any, x: Any, timestep: Any, model_options: dict = _NO_OPTIONS, seed: Any = None
    ) -> Any:
        """PREDICT_NOISE wrapper: one call, computed or reused."""
        run = executor.class_obj.model_options.get("transformer_options", {}).get(KEY)
        if run is None:
            return executor(x, timestep, model_options, seed)
        with run.watching_other_cache():
            denoised = run.denoised(
                x, timestep, model_options, seed, lambda options: executor(x, timestep, options, seed)
            )
        run.feed.tell()
        return denoised

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL wrapper: one pass through the blocks."""
        for options in (kwargs.get("transformer_options"), *args):
            if isinstance(options, dict) and isinstance(options.get(KEY), SamplerRun):
                blocks = options[KEY].cached.blockcache
                return run_pass(blocks, executor, options, args, kwargs) if blocks else executor(*args, **kwargs)
        return executor(*args, **kwargs)


def attach(
    patcher: Any,
    node_id: str | None = None,
    companion: BlockCacheConfig | None = None,
    label: str | None = None,
    **configs: Any,
) -> Any:
    """A clone of the patcher with more settings attached; the patcher itself is not changed.

    node_id: of the node that attaches them. configs: `lfcache=` (with `earlier=`) or `blockcache=`, each its settings
    or None for none. Settings of the other kind stay; attaching the same kind again replaces its settings.
    companion: settings of BlockCache that come with those of LFCache, unless BlockCache has its own; they go with them.
    label: the settings in a word or two, for pictures; by default "LFCache" or "BlockCache".
    Raises ValueError if `patcher` is not that of a diffusion model.
    """
    if not hasattr(getattr(patcher, "model", None), "model_sampling"):
        raise ValueError(
            f"PreciseCache: model must be a diffusion model, got {type(patcher).__name__}. "
            "Connect the MODEL output of a loader."
        )
    patcher, attachment = patcher.clone(), attached(attachment_of(patcher), node_id, companion, label, **configs)
    put_on(patcher, attachment)
    return patcher


def attached(
    before: Attachment | None,
    node_id: str | None = None,
    companion: BlockCacheConfig | None = None,
    label: str | None = None,
    **configs: Any,
) -> Attachment:
    """The Attachment that a node makes of the one before it, or of none; arguments as in `attach`."""
    has_own_blocks = False
    if before is not None and not before.is_companion:
        has_own_blocks = before.blockcache is not None or "blockcache" in before.nodes  # a node may set it to off
    if "lfcache" in configs and "blockcache" not in configs and not has_own_blocks:
        configs |= {"blockcache": companion, "is_companion": companion is not None}
    nodes = {} if before is None else {kind: node for kind, node in before.nodes.items() if kind not in configs}
    kind = next(kind for kind in configs if kind in TITLES)
    labels = {} if before is None else {other: text for other, text in before.labels.items() if other != kind}
    if configs[kind] is not None:
        labels[kind] = label or TITLES[kind].removeprefix("PreciseCache ")
    remarks = list(before.remarks) if before is not None else []
    if node_id is not None:
        if before is not None and before.nodes.get(kind, node_id) != node_id:
            remarks.append(f"two {TITLES[kind]} nodes follow each other: the one nearer to the sampler counts")
        nodes[kind] = node_id
    if before is not None:
        configs = {"lfcache": before.lfcache, "blockcache": before.blockcache, "earlier": before.earlier, **configs}
    return Attachment(nodes, **configs, remarks=list(dict.fromkeys(remarks)), labels=labels)


def put_on(patcher: Any, attachment: Attachment | None) -> None:
    """Put an Attachment on a patcher that is ours to change, in place of the one it has; None leaves it without."""
    wrappers = (
        {}
        if attachment is None
        else {
            WrappersMP.OUTER_SAMPLE: attachment.outer_sample,
            WrappersMP.PREDICT_NOISE: attachment.predict_noise,
        }
    )
    if attachment is not None and attachment.blockcache is not None:
        wrappers[WrappersMP.APPLY_MODEL] = attachment.apply_model
    for when in (WrappersMP.OUTER_SAMPLE, WrappersMP.PREDICT_NOISE, WrappersMP.APPLY_MODEL):
        patcher.remove_wrappers_with_key(when, KEY)
        if when in wrappers:
            patcher.add_wrapper_with_key(when, KEY, wrappers[when])


def attachment_of(patcher: Any) -> Attachment | None:
    """The Attachment on a patcher, or None."""
    for wrapper in patcher.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        return wrapper.__self__
    return None
