"""Train the tiny video model: `python -m tools.training.train --out runs/tiny`.

Flow matching on procedural clips. Every step draws new clips of one of several sizes, because
LFCache's trial runs the model on a latent far smaller than the one that is sampled.
Resumes from the last checkpoint in --out. `--export` writes the bundled files.

The bundled weights were trained in three runs: 2,250 steps on more subjects and motions with
other shares of the sizes, then `--init` and 6,500 steps on four subjects, then 1,800 more on
today's three. All three together took about two hours on two cores.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from precisecache_core.tiny.bundle import CODEC_NAME, MODEL_NAME
from precisecache_core.tiny.codec import CELL, TinyVideoCodec
from precisecache_core.tiny.model import TinyVideoModel
from precisecache_core.tiny.prompts import TEXT_DIM
from tools.training.kinds import KINDS

SECOND_PHASE = 0.55
GUIDANCE_DROPOUT = 0.12
RATES = (3.0, 1.0)  # of Muon and AdamW, times --rate; at the same rate Muon's updates are smaller


def draw_batch(kind, codec, frames, side, batch, generator):
    """Latents (B, 16, T, side, side) and conditioning (B, words, 64), with some of its rows zeroed."""
    clips = kind.render(batch, CELL * (frames - 1) + 1, CELL * side, CELL * side, generator)
    offsets = torch.tensor([0, *map(len, kind.words[:-1])]).cumsum(0) + 1
    words = clips.words + offsets
    words[torch.rand(batch, generator=generator) < GUIDANCE_DROPOUT] = 0
    return codec.encode_cells(clips.videos), torch.nn.functional.one_hot(words, TEXT_DIM).float()


def draw_times(batch, tokens, generator):
    """Noise levels in (0, 1): logit-normal, shifted up for larger sizes as in flow models."""
    shift = max(1.0, (tokens / 128) ** 0.5)
    t = torch.randn(batch, generator=generator).mul(1.2).sigmoid()
    return shift * t / (1 + (shift - 1) * t)


def build_optimizers(model, rate):
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices = [p for n, p in model.named_parameters() if n.startswith("blocks") and p.ndim == 2]
    held = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in held]
    return (
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    )


def learning_rate(step, steps, rate):
    """Linear warm-up, then constant, then a cosine over the last 45 %."""
    decay = (step / steps - 0.55) / 0.45
    fade = 1.0 if decay < 0 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(decay, 1)))
    return rate * min(1, (step + 1) / 60) * fade


def export(model_state, codec, config, folder):
    """Write the weights (fp16, with the sizes in the metadata that ComfyUI reads) and the codec."""
    transformer = {"num_heads": config.num_heads, "text_dim": config.text_dim}
    metadata = {"config": json.dumps({"transformer": transformer})}
    weights = {k: v.half().contiguous() for k, v in model_state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / MODEL_NAME, metadata)
    save_file({k: v.float().contiguous() for k, v in codec.state_dict().items()}, folder / CODEC_NAME)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--kind", choices=KINDS, default="shapes", help="shapes: the bundled model; deep: the benchmarks' second"
    )
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the blocks (faster on long runs)")
    parser.add_argument("--float32", action="store_true", help="no bfloat16, which is slower on some processors")
    parser.add_argument("--init", type=Path, help="start from the bundled files in this folder")
    parser.add_argument("--export", type=Path, help="write the bundled files here and stop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    kind = KINDS[args.kind]
    config = kind.config
    model, codec = TinyVideoModel(config), TinyVideoCodec()
    average = {k: v.clone() for k, v in model.state_dict().items()}
    optimizers = build_optimizers(model, args.rate)
    generator = torch.Generator().manual_seed(args.seed)
    checkpoint, start = args.out / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average, start = saved["average"], saved["step"]
        codec.load_state_dict(saved["codec"])
        generator.set_state(saved["generator"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        print(f"resumed at step {start}", flush=True)
    elif args.init:
        weights = load_file(args.init / MODEL_NAME)
        model.load_state_dict({k: v.float() for k, v in weights.items()})
        average = {k: v.clone() for k, v in model.state_dict().items()}
        codec.load_state_dict(load_file(args.init / CODEC_NAME))
    else:
        fresh = torch.Generator().manual_seed(args.seed + 1)
        codec.fit(kind.render(200, 13, 128, 128, fresh).videos)
    if args.export:
        export(average, codec, config, args.export)
        return
    if args.compile:
        torch._dynamo.config.recompile_limit = 32
        for block in model.blocks:
            block.compile(dynamic=False)

    began, running = time.time(), {}
    for step in range(start, args.steps):
        phase = int(step >= SECOND_PHASE * args.steps)
        shares = torch.tensor([size[3 + phase] for size in kind.sizes])
        frames, side, batch, *_ = kind.sizes[torch.multinomial(shares, 1, generator=generator)]
        latent, context = draw_batch(kind, codec, frames, side, batch, generator)
        t = draw_times(batch, frames * side * side / 4, generator)
        noise = torch.randn(latent.shape, generator=generator)
        level = t.view(-1, 1, 1, 1, 1)
        x = (1 - level) * latent + level * noise
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
            velocity = model(x, t * 1000, context)
        loss = (velocity.float() - (noise - latent)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, factor in zip(optimizers, RATES):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, args.steps, args.rate * factor)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(0.998, (step + 1) / (step + 20))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        key = f"{frames}x{side}"
        running[key] = running.get(key, loss.item()) * 0.95 + loss.item() * 0.05
        if (step + 1) % 50 == 0:
            losses = "  ".join(f"{k} {v:.4f}" for k, v in sorted(running.items()))
            print(f"step {step + 1}  {time.time() - began:.0f} s  {losses}", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            state = {
                "model": model.state_dict(),
                "average": average,
                "codec": codec.state_dict(),
                "step": step + 1,
                "generator": generator.get_state(),
                "optimizers": [o.state_dict() for o in optimizers],
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)


if __name__ == "__main__":
    main()
