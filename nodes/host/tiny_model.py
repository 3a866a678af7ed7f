"""The tiny video model, the bundled one by default, as the host's MODEL, VAE and CONDITIONING."""

import inspect
import json
import math
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sd
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP

from ...precisecache_core.tiny import bundle
from ...precisecache_core.tiny.codec import CHANNELS, TinyVideoCodec
from ...precisecache_core.tiny.prompts import encode_prompt


def load_model(folder: Path = bundle.FOLDER, shift: float = bundle.SHIFT) -> Any:
    """A new MODEL with the weights of a folder and this flow shift.

    Wrappers attached to it get a copy of its input. In other models the cast to 16 bits makes such a copy.
    Without it, EasyCache would write into the sampler's own latent (on a CPU, in float32).
    """
    weights, metadata = bundle.read_weights(folder)
    load = comfy.sd.load_diffusion_model_state_dict
    if "metadata" in inspect.signature(load).parameters:
        patcher = load(weights, metadata=metadata)
    else:
        patcher = _load_with_sizes(weights, json.loads(metadata["config"])["transformer"])
    sampling = patcher.get_model_object("model_sampling")
    shifted = type(sampling)(patcher.model.model_config)
    shifted.set_parameters(shift=shift)
    patcher.add_object_patch("model_sampling", shifted)
    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "precisecache_tiny", _on_a_copy)
    return patcher


def _on_a_copy(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """DIFFUSION_MODEL wrapper; it is attached first, so it is the outermost."""
    return executor(x.clone(), *args, **kwargs)


def _load_with_sizes(weights: dict, sizes: dict) -> Any:
    """The MODEL on hosts that do not read sizes from a file's metadata (such as 0.3.64)."""
    management, detection = comfy.model_management, comfy.model_detection
    found = detection.detect_unet_config(weights, "") | sizes
    config = detection.model_config_from_unet_config(found, weights)
    device = management.get_torch_device()
    stored = comfy.utils.weight_dtype(weights)
    dtype = management.unet_dtype(supported_dtypes=config.supported_inference_dtypes, weight_dtype=stored)
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model(weights, "")
    model.load_model_weights(weights, "")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=management.unet_offload_device())


def load_vae(folder: Path = bundle.FOLDER) -> Any:
    """The codec of a folder as a VAE for ComfyUI's decode, tiled decode and encode nodes."""
    vae = comfy.sd.VAE({"pixel_space_vae": torch.zeros(1)})
    codec = HostCodec(bundle.load_codec(folder)).to(vae.vae_dtype)
    vae.first_stage_model = codec
    vae.latent_channels, vae.latent_dim, vae.output_channels = CHANNELS, 3, 3
    vae.upscale_ratio = (lambda frames: max(0, frames * 4 - 3), 8, 8)
    vae.upscale_index_formula = (4, 8, 8)
    vae.downscale_ratio = (lambda frames: max(0, math.floor((frames + 3) / 4)), 8, 8)
    vae.downscale_index_formula = (4, 8, 8)
    vae.memory_used_decode = lambda shape, dtype: 4096 * math.prod(shape[2:]) * 8
    vae.memory_used_encode = lambda shape, dtype: 64 * math.prod(shape[2:]) * 8
    vae.process_input = vae.process_output = lambda image: image
    vae.patcher = comfy.model_patcher.ModelPatcher(
        codec, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    return vae


class HostCodec(torch.nn.Module):
    """The codec in Wan2.1's latent format, which ComfyUI applies to a sampler's output."""

    codec: TinyVideoCodec

    def __init__(self, codec: TinyVideoCodec) -> None:
        super().__init__()
        self.codec = codec
        self.format = comfy.latent_formats.Wan21()

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """The frames of a sampler's output; shapes as in `TinyVideoCodec.decode`."""
        return self.codec.decode(self.format.process_in(latent))

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """The latent of frames, as a sampler takes it; shapes as in `TinyVideoCodec.encode`."""
        return self.format.process_out(self.codec.encode(video))


def conditioning(subject: str = "", color: str = "", motion: str = "") -> list:
    """CONDITIONING for these words of `prompts`; without words, that of the unconditional branch."""
    return [[encode_prompt(subject, color, motion), {}]]
