"""Small models as files that a loader node can load by name, with what to sample them with.

Their tokens and heads divide by two, so that two sequence ranks get whole shards without padding.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from precisecache_core.tiny import bundle
from precisecache_core.tiny.prompts import encode_prompt
from testkit.raylight_on_cpu import SIZES, detecting_by_metadata

TINY = "tiny wan"
# {name: sizes in place of those in `testkit.architectures`: two heads}
RANDOM = {
    "wan2.1 vace": dict(dim=256, ffn_dim=256, num_heads=2),
    "wan2.1 camera": dict(dim=256, ffn_dim=256, num_heads=2),
    "flux": dict(hidden_size=256, num_heads=2),
    "qwen-image": dict(num_attention_heads=2),
    "hunyuanvideo": dict(hidden_size=256, num_heads=2),
    "hunyuanvideo 1.5": dict(hidden_size=256, num_heads=2),
}


@dataclass(frozen=True)
class ModelFile:
    """file: its name for a loader node. positive, negative: CONDITIONING. latent: shape of what is sampled."""

    name: str
    file: str
    positive: list
    negative: list
    latent: tuple


class ModelFiles:
    """Writes model files into a folder, each once, where the host's loader nodes find them."""

    def __init__(self, folder):
        import folder_paths

        self.folder = Path(folder)
        self.written = {}
        folder_paths.add_model_folder_path("diffusion_models", str(self.folder))

    def __getitem__(self, name):
        """The ModelFile of `TINY` or of a name in `ARCHITECTURES`. Raises Unsupported if the host does not know it."""
        if name not in self.written:
            write = self._write_tiny if name == TINY else self._write_random
            self.written[name] = write(name, self.folder / f"{name}.safetensors")
        return self.written[name]

    def _write_tiny(self, name, path):
        shutil.copyfile(bundle.MODEL_FILE, path)
        positive, negative = ([[encode_prompt(*words), {}]] for words in (("triangle", "orange", "right"), ()))
        return ModelFile(name, path.name, positive, negative, (1, 16, 2, 8, 8))

    def _write_random(self, name, path):
        from testkit.architectures import ARCHITECTURES, conditioning, random_weights

        weights, fixed, _ = random_weights(name, **RANDOM.get(name, {}))
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path, {SIZES: json.dumps(fixed)})
        return ModelFile(name, path.name, conditioning(name, 1), conditioning(name, 2), ARCHITECTURES[name].latent)


def load_plainly(model, shift=None):
    """The MODEL of a ModelFile, from the host's own loader node; shift: set as by ModelSamplingSD3."""
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    import nodes

    with detecting_by_metadata():
        patcher = nodes.UNETLoader().load_unet(model.file, "default")[0]
    return patcher if shift is None else ModelSamplingSD3().patch(patcher, shift)[0]


def sample_plainly(
    patcher, model, seed=0, steps=8, cfg=4.0, sampler="euler", scheduler="simple", latent=None, shape=None
):
    """The latent that the host's own KSampler returns; arguments as for `RayBench.sample`."""
    import nodes

    latent = {"samples": torch.zeros(shape or model.latent) if latent is None else latent}
    sampled = nodes.common_ksampler(
        patcher, seed, steps, cfg, sampler, scheduler, model.positive, model.negative, latent
    )
    return sampled[0]["samples"]


def difference(found, expected):
    """Largest absolute difference over the largest absolute value of what was expected."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
