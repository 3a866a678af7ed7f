"""The files of the tiny video model. One ships with the pack; others can be loaded from their folder."""

import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file

from .codec import TinyVideoCodec
from .model import TinyVideoModel, config_of

FOLDER = Path(__file__).parent / "weights"
MODEL_NAME, CODEC_NAME = "tiny_video_model.safetensors", "tiny_video_codec.safetensors"
MODEL_FILE, CODEC_FILE = FOLDER / MODEL_NAME, FOLDER / CODEC_NAME

# With this flow shift the small latents settle their structure over the whole run; Wan's own 8
# would leave almost all change to the last steps.
SHIFT = 2.0


def read_weights(folder: Path = FOLDER) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the model file of a folder: (state dict in the stored dtype, safetensors metadata)."""
    with safetensors.safe_open(folder / MODEL_NAME, "pt") as file:
        metadata = file.metadata()
    return load_file(folder / MODEL_NAME), metadata


def load_model(folder: Path = FOLDER) -> TinyVideoModel:
    """The tiny video model of a folder in plain PyTorch, float32, ready to sample."""
    weights, metadata = read_weights(folder)
    sizes = json.loads(metadata["config"])["transformer"]
    model = TinyVideoModel(config_of(weights, sizes["num_heads"]))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return model.eval().requires_grad_(False)


def load_codec(folder: Path = FOLDER) -> TinyVideoCodec:
    """The codec of a folder, which turns its model's latents into frames and back."""
    codec = TinyVideoCodec()
    codec.load_state_dict(load_file(folder / CODEC_NAME))
    return codec.eval()
