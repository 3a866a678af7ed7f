"""A small model that takes STDiT3's arguments, and a loop of the form of RFLOW's, to sample it with."""

from types import SimpleNamespace

import torch
from torch import nn

from precisecache_core import flow_sigmas

STEPS, SCALE = 30, 3.0
SHAPE = (1, 4, 5, 16, 16)  # 17 frames of 128 x 128
SHIFT = (128 * 128 / 512**2 * 5) ** 0.5
COMPUTED = 11  # of 30 steps, with base: 9 + 0.07 * 30


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
        self.calls = 0

    def forward(self, x, y, t, mask=None, x_mask=None, t0=None, T=None, S=None):
        self.calls += 1
        if x_mask is not None:
            t = torch.where(x_mask[:, :, None, None], t[:, :, None], t0[:, :, None]).expand(-1, -1, S, -1).flatten(1, 2)
        return x + 0.3 * self.layers(self.norm(x) + t + y)


class TinySTDiT3(nn.Module):
    patch_size = (1, 2, 2)
    in_channels = 4

    def __init__(self, dim=16, depth=3):
        super().__init__()
        self.x_embedder = nn.Conv3d(4, dim, self.patch_size, self.patch_size)
        self.t_embedder, self.y_embedder = nn.Linear(2, dim), nn.Linear(8, dim)
        self.spatial_blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.temporal_blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.final_layer = nn.ConvTranspose3d(dim, 8, self.patch_size, self.patch_size)
        self.asked = []  # of each call: shape, timestep, further arguments
        self.fails_at = None

    def forward(self, x, timestep, y, mask=None, x_mask=None, fps=None, height=None, width=None, **kwargs):
        rest = {"x_mask": x_mask, "fps": fps, "height": height, "width": width, **kwargs}
        self.asked.append((tuple(x.shape), timestep.clone(), rest))
        if self.fails_at is not None and self.full_calls == self.fails_at:
            raise RuntimeError("a failure")
        x = x.to(self.x_embedder.weight.dtype)
        x = self.x_embedder(x)
        frames, *size = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        rate = fps.repeat(2) / 100
        t, t0 = (self.t_embedder(torch.stack((s / 1000, rate), 1))[:, None] for s in (timestep, 0 * timestep))
        y = self.y_embedder(y).mean(2)
        for pair in zip(self.spatial_blocks, self.temporal_blocks):
            for block in pair:
                x = block(x, y, t, mask, x_mask, t0, frames, size[0] * size[1])
        return self.final_layer(x.transpose(1, 2).unflatten(2, (frames, *size))).float()

    @property
    def full_calls(self):
        return sum(shape[-1] == SHAPE[-1] for shape, *_ in self.asked)


def scheduler_of(steps=STEPS, **settings):
    return SimpleNamespace(
        num_sampling_steps=steps,
        num_timesteps=1000,
        use_discrete_timesteps=False,
        use_timestep_transform=True,
        cfg_scale=SCALE,
        **settings,
    )


def arguments(videos=1):
    """What Open-Sora's scripts give beside the latent."""
    named = {"height": 128.0, "width": 128.0, "num_frames": 17.0, "ar": 1.0, "fps": 24.0}
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(2 * videos, 1, 3, 8, generator=generator)
    return {"y": y, "mask": torch.ones(videos, 3), **{n: torch.tensor([v] * videos) for n, v in named.items()}}


def sample(model, scheduler, z, guidance_scale=SCALE, mask=None, levels=None, noise_seed=5):
    """A loop of the same form as RFLOW.sample. mask: (B, T), up to which noise level each frame is kept clean."""
    if levels is None:
        levels = flow_sigmas(scheduler.num_sampling_steps, SHIFT)
    args, generator = arguments(len(z)), torch.Generator().manual_seed(noise_seed)
    was_moving = None if mask is None else mask == 1
    for level, following in zip(levels[:-1], levels[1:]):
        if mask is not None:
            moving = mask >= level
            args["x_mask"] = torch.cat((moving, moving))
            noised = (1 - level) * z + level * torch.randn(z.shape, generator=generator)
            z = torch.where((moving & ~was_moving)[:, None, :, None, None], noised, z)
            was_moving = moving
        out = model(torch.cat((z, z)), torch.full((2 * len(z),), 1000.0) * level, **args)
        cond, null = out[:, :4].chunk(2)
        moved = z + (null + guidance_scale * (cond - null)) * (level - following)
        z = moved if mask is None else torch.where(moving[:, None, :, None, None], moved, z)
    return z


def start(shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def distance(x, y):
    return ((x - y).norm() / y.norm()).item()
