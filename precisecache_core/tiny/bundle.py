"""The files of the tiny video model that ship with the pack."""

import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file

from .codec import TinyVideoCodec
from .model import TinyVideoModel, config_of

FOLDER = Path(__file__).parent / "weights"
MODEL_FILE = FOLDER / "tiny_video_model.safetensors"
CODEC_FILE = FOLDER / "tiny_video_codec.safetensors"

# With this flow shift the small latents settle their structure over the whole run; Wan's own 8
# would leave almost all change to the last steps.
SHIFT = 2.0


def read_weights() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the model file: (state dict in the stored dtype, safetensors metadata)."""
    with safetensors.safe_open(MODEL_FILE, "pt") as file:
        metadata = file.metadata()
    return load_file(MODEL_FILE), metadata


def load_model() -> TinyVideoModel:
    """The tiny video model in plain PyTorch, float32, ready to sample."""
    weights, metadata = read_weights()
    sizes = json.loads(metadata["config"])["transformer"]
    model = TinyVideoModel(config_of(weights, sizes["num_heads"]))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return model.eval().requires_grad_(False)


def load_codec() -> TinyVideoCodec:
    """The codec that turns the model's latents into frames and back."""
    codec = TinyVideoCodec()
    codec.load_state_dict(load_file(CODEC_FILE))
    return codec.eval()
