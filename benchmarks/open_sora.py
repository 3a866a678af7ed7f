"""Runs Open-Sora 1.2's own RFLOW.sample with the caches, on a small STDiT3 with random weights.

    git clone https://github.com/hpcaitech/Open-Sora && git -C Open-Sora checkout v1.2.0
    pip install --target packages --no-deps rotary_embedding_torch==0.5.3 beartype mmengine addict termcolor yapf \\
        platformdirs
    OPEN_SORA_PATH=Open-Sora PYTHONPATH=packages python -m benchmarks.open_sora

It also needs transformers, einops, diffusers, beautifulsoup4, rich and pyyaml, and no GPU. What Open-Sora imports
beside these is replaced here: attention by torch's, the rest by nothing. Prints what it finds and saves it in
results/open_sora.txt.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import subprocess
import sys
import types
import warnings
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.options import RESULTS
from precisecache_core.pipelines.open_sora import CachedSTDiT3
from tools.machine import describe_machine, head

REPLACED = ("xformers", "timm", "colossalai", "ftfy")
PACKAGES = ("transformers", "einops", "rotary_embedding_torch", "mmengine")
STEPS, SCALE = 30, 7.0  # of Open-Sora's configs/opensora-v1-2/inference/sample.py
HEIGHT, WIDTH, FRAMES, FPS = 144, 256, 51, 24
LATENT = (1, 4, 15, HEIGHT // 8, WIDTH // 8)
SIZE = {"hidden_size": 64, "depth": 6, "num_heads": 4, "caption_channels": 32, "model_max_length": 12}
NEAR = 1e-5  # the largest difference, relative to the largest value, that still counts as none


class Nothing(types.ModuleType):
    """A module that has every attribute."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


class Replacements(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules in the packages that are replaced."""

    def find_spec(self, name, path=None, target=None):
        is_replaced = name.split(".")[0] in REPLACED
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_replaced else None

    def create_module(self, spec):
        return Nothing(spec.name)

    def exec_module(self, module):
        if module.__name__ == "timm.models.vision_transformer":
            module.Mlp = Mlp
        if module.__name__ == "xformers.ops":
            module.memory_efficient_attention = attention
            module.fmha = types.SimpleNamespace(BlockDiagonalMask=types.SimpleNamespace(from_seqlens=diagonal))


class Mlp(nn.Module):
    def __init__(self, in_features, hidden_features=None, out_features=None, act_layer=nn.GELU, drop=0.0):
        super().__init__()
        hidden = hidden_features or in_features
        self.fc1, self.act = nn.Linear(in_features, hidden), act_layer()
        self.fc2 = nn.Linear(hidden, out_features or in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def diagonal(queries, keys):
    """(queries, keys), bool: token i of one sequence sees the tokens of the same sequence."""
    rows, columns = (torch.repeat_interleave(torch.arange(len(n)), torch.tensor(n)) for n in (queries, keys))
    return rows[:, None] == columns


def attention(q, k, v, p=0.0, attn_bias=None):
    """q, k, v: (B, tokens, heads, width)."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias).transpose(1, 2)


class TextEncoder:
    """Gives a random embedding for every prompt, as Open-Sora's T5 encoder gives its own."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.y_embedder = None

    def encode(self, prompts):
        shape = (len(prompts), 1, SIZE["model_max_length"], SIZE["caption_channels"])
        y = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(self.dtype)
        mask = torch.zeros(len(prompts), SIZE["model_max_length"], dtype=torch.long)
        mask[:, :9] = 1
        return {"y": y, "mask": mask}

    def null(self, n):
        return self.y_embedder.y_embedding[None, None].repeat(n, 1, 1, 1)


def build(dtype):
    """(model, scheduler): Open-Sora's own classes."""
    stdit3 = importlib.import_module("opensora.models.stdit.stdit3")
    torch.manual_seed(0)
    model = stdit3.STDiT3(stdit3.STDiT3Config(qk_norm=True, **SIZE)).eval()
    for parameter in model.parameters():
        if not parameter.any():  # what Open-Sora begins at zero would make half of the blocks do nothing
            nn.init.normal_(parameter, std=0.05)
    rflow = importlib.import_module("opensora.schedulers.rf").RFLOW
    return model.to(dtype), rflow(STEPS, cfg_scale=SCALE, use_timestep_transform=True)


def sample(model, scheduler, dtype, mask):
    """A run of Open-Sora's own loop from the same noise; returns the latent."""
    encoder = TextEncoder(dtype)
    encoder.y_embedder = model.y_embedder
    named = {"height": HEIGHT, "width": WIDTH, "num_frames": FRAMES, "ar": HEIGHT / WIDTH, "fps": FPS}
    args = {name: torch.tensor([value], dtype=dtype) for name, value in named.items()}
    z = torch.randn(LATENT, generator=torch.Generator().manual_seed(4)).to(dtype)
    torch.manual_seed(5)
    return scheduler.sample(model, encoder, z, ["a prompt"], "cpu", additional_args=args, mask=mask, progress=False)


def difference(x, y):
    """The largest difference, relative to the largest value of y."""
    return ((x - y).abs().max() / y.abs().max()).item()


def measure(dtype, kept):
    """Lines on every preset. kept: how many frames are kept clean; None for no mask."""
    model, scheduler = build(dtype)
    mask = None if kept is None else torch.ones(LATENT[0], LATENT[2])
    if kept:
        mask[:, :kept] = 0
    expected = sample(model, scheduler, dtype, mask)
    masks = {None: "no mask", 0: "a mask of ones, as scripts/inference.py gives it"}
    yield f"\n{str(dtype).removeprefix('torch.')}, {masks.get(kept, f'{kept} of {LATENT[2]} frames kept clean')}"
    yield f"{'':8} {'computed':>8} {'trials':>6} {'block calls skipped':>19} {'difference':>10}  decisions"
    for name, settings in {
        "alpha 0": {"preset": "custom", "alpha": 0.0},
        "base": {"preset": "base"},
        "turbo": {"preset": "turbo"},
        "flash": {"preset": "flash"},
    }.items():
        cached = CachedSTDiT3(model, scheduler, **settings)
        found = sample(cached, scheduler, dtype, mask)
        (run,) = cached.report()["runs"]
        blocks = run["blockcache"]
        skipped = f"{blocks['block_calls_skipped']} of {blocks['block_calls']}" if blocks else ""
        off = difference(found, expected)
        yield (f"{name:8} {run['computed']:>8} {run['trials']:>6} {skipped:>19} {off:>10.2g}  {run['decisions']}")
        yield from (f"{'':8} {warning}" for warning in run["warnings"])
        assert off <= NEAR or name != "alpha 0", f"alpha 0 differs by {off}"
        assert "R" in run["decisions"] or name == "alpha 0", f"{name} reused nothing"
        assert not blocks or blocks["block_calls_skipped"], f"{name} skipped no block"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    out = parser.parse_args().out
    path = Path(os.environ.get("OPEN_SORA_PATH", ""))
    if not (path / "opensora" / "schedulers" / "rf").is_dir():
        sys.exit(f"OPEN_SORA_PATH must be a checkout of Open-Sora at tag v1.2.0, got {str(path)!r}")
    sys.path.insert(0, str(path))
    sys.meta_path.insert(0, Replacements())
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("precisecache").setLevel(logging.ERROR)  # the table has them
    torch.set_grad_enabled(False)
    describe = ["git", "-C", path, "describe", "--tags", "--always", "--dirty"]
    tag = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    lines = [
        "command: OPEN_SORA_PATH=Open-Sora PYTHONPATH=packages python -m benchmarks.open_sora",
        *head("", *(f"{name} {version(name)}" for name in PACKAGES), describe_machine())[1:],
        f"Open-Sora {tag}: RFLOW.sample and STDiT3 as they are, {STEPS} steps, cfg {SCALE:g}, latents {LATENT}",
        "STDiT3 with random weights, "
        + ", ".join(f"{name} {value}" for name, value in SIZE.items())
        + ": what the caches do to a picture cannot be seen with it",
        "difference: the largest to the run without caches, relative to the largest value of that",
        "block calls: those of computed steps, without trials",
    ]
    print(*lines, sep="\n", flush=True)
    for dtype, kept in ((torch.float32, None), (torch.float32, 0), (torch.float32, 5), (torch.bfloat16, 0)):
        for line in measure(dtype, kept):
            print(line, flush=True)
            lines.append(line)
    out.mkdir(parents=True, exist_ok=True)
    (out / "open_sora.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
