"""The files of the tiny video model that ship with the pack."""

import json
from pathlib import Path

import safetensors
from safetensors.torch import load_file

from .codec import TinyVideoCodec
from .model import TinyVideoModel, config_of

FOLDER = Path(__file__).parent / "weights"
MODEL_FILE = FOLDER / "tiny_video_model.safetensors"
CODEC_FILE = FOLDER / "tiny_video_codec.safetensors"

# Flow shift at which the small latents settle their structure over the whole run; Wan's
# own 8 would leave almost all change to the last steps.
SHIFT = 2.0


def read_weights():
    """(state dict in the stored dtype, safetensors metadata) of the model file."""
    with safetensors.safe_open(MODEL_FILE, "pt") as file:
        metadata = file.metadata()
    return load_file(MODEL_FILE), metadata


def load_model():
    """The tiny video model in plain PyTorch, float32, ready to sample."""
    weights, metadata = read_weights()
    sizes = json.loads(metadata["config"])["transformer"]
    model = TinyVideoModel(config_of(weights, sizes["num_heads"]))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return model.eval().requires_grad_(False)


def load_codec():
    """The codec that turns its latents into frames and back."""
    codec = TinyVideoCodec()
    codec.load_state_dict(load_file(CODEC_FILE))
    return codec.eval()
