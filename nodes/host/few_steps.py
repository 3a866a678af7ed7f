"""What to expect of a run with few steps, or with a model or LoRA made for few."""

import os
import re

from ...precisecache_core.lfcache.config import MINIMUM_STEPS, LFCacheConfig
from .prompt import Prompt

FEW = 12  # steps of a whole schedule, from MINIMUM_STEPS: most of them are computed
# guidance distillation (cfgdistill) leaves the number of steps as it is
FEW_STEP_NAME = re.compile(r"lightning|lightx2v|causvid|turbo|(?<!cfg)(?<!cfg_)(?<!cfg-)distill", re.IGNORECASE)
FILE = re.compile(r"\.(safetensors|gguf|sft|ckpt|pth?|bin)$", re.IGNORECASE)


def what_to_expect(config: LFCacheConfig, steps: int, part: float, prompt: Prompt) -> str | None:
    """One sentence for a run that leaves little to reuse; None for any other.

    steps: of this run. part: of the noise schedule that it covers, in [0, 1]; the steps of both experts together are
    those of a whole schedule. prompt: the executing one, whose node is the sampler.
    """
    if steps < MINIMUM_STEPS:
        return None  # LFCache stands aside and says so
    name = few_step_file(prompt)
    if name:
        return f"{name} is made for few steps, which leave little to reuse: take it out and use 20 steps or more"
    whole = round(steps / part) if part > 0 else steps
    if whole > FEW:
        return None
    computed = f": {config.budget(steps)} of {steps} are computed" if config.share is not None else ""
    return f"a schedule of {whole} steps is short{computed}; 20 steps or more save more"


def few_step_file(prompt: Prompt) -> str | None:
    """The name of a model or LoRA made for few steps, upstream of the sampler; None if there is none."""
    for key in prompt.upstream(prompt.node_id):
        for value in (prompt.nodes[key].get("inputs") or {}).values():
            if isinstance(value, str) and FILE.search(value) and FEW_STEP_NAME.search(os.path.basename(value)):
                return os.path.basename(value)
    return None
