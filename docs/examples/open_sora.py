"""Text to video with Open-Sora 1.2 and PreciseCache.

Run it in a checkout of Open-Sora at tag v1.2.0, in Open-Sora's environment (with Python 3.10 or newer), with
PreciseCache installed there (`pip install .` in its clone): python open_sora.py "a lighthouse at dusk"
"""

import argparse
import json

import torch
from opensora.datasets import save_sample
from opensora.datasets.aspect import get_image_size
from opensora.models.text_encoder.t5 import text_preprocessing
from opensora.registry import MODELS, SCHEDULERS
from opensora.utils.inference_utils import prepare_multi_resolution_info

from precisecache_core import summary_line
from precisecache_core.pipelines.open_sora import CachedSTDiT3

parser = argparse.ArgumentParser(description="A video by Open-Sora 1.2, with PreciseCache.")
parser.add_argument("prompt")
parser.add_argument("--preset", default="base", choices=("off", "base", "turbo", "flash"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--output", default="open_sora", help="without an ending")
parser.add_argument("--plain", action="store_true", help="where flash-attn and apex are not installed")
options = parser.parse_args()

FRAMES, FPS = 51, 24
SIZE = get_image_size("480p", "9:16")  # (height, width)
DEVICE, DTYPE = "cuda", torch.bfloat16

torch.set_grad_enabled(False)
torch.manual_seed(options.seed)

text_encoder = MODELS.build(
    {"type": "t5", "from_pretrained": "DeepFloyd/t5-v1_1-xxl", "model_max_length": 300, "device": DEVICE}
)
vae = MODELS.build(
    {
        "type": "OpenSoraVAE_V1_2",
        "from_pretrained": "hpcai-tech/OpenSora-VAE-v1.2",
        "micro_frame_size": 17,
        "micro_batch_size": 4,
    }
)
vae = vae.to(DEVICE, DTYPE).eval()
latent_size = vae.get_latent_size((FRAMES, *SIZE))
model = MODELS.build(
    {
        "type": "STDiT3-XL/2",
        "from_pretrained": "hpcai-tech/OpenSora-STDiT-v3",
        "qk_norm": True,
        "enable_flash_attn": not options.plain,
        "enable_layernorm_kernel": not options.plain,
        "input_size": latent_size,
        "in_channels": vae.out_channels,
        "caption_channels": text_encoder.output_dim,
        "model_max_length": text_encoder.model_max_length,
    }
)
model = model.to(DEVICE, DTYPE).eval()
text_encoder.y_embedder = model.y_embedder
scheduler = SCHEDULERS.build(
    {"type": "rflow", "use_timestep_transform": True, "num_sampling_steps": 30, "cfg_scale": 7.0}
)

cached = CachedSTDiT3(model, scheduler, options.preset)
samples = scheduler.sample(
    cached,
    text_encoder,
    z=torch.randn(1, vae.out_channels, *latent_size, device=DEVICE, dtype=DTYPE),
    prompts=[text_preprocessing(f"{options.prompt} aesthetic score: 6.5.")],
    device=DEVICE,
    additional_args=prepare_multi_resolution_info("OpenSora", 1, SIZE, FRAMES, FPS, DEVICE, DTYPE),
)
save_sample(vae.decode(samples.to(DTYPE), num_frames=FRAMES)[0], save_path=options.output, fps=FPS)

report = cached.report()
print(summary_line(report["runs"][-1]))
with open(f"{options.output}.json", "w", encoding="utf-8") as file:
    json.dump(report, file, indent=1)
