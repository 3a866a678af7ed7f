"""The tiny video model: a text-to-video diffusion transformer in Wan2.1's format.

Written for this project from the published architecture (Wan2.1, arXiv:2503.20314). The tensors
have Wan's names, so that the same file loads in ComfyUI's Load Diffusion Model node.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn


@dataclass(frozen=True)
class TinyVideoConfig:
    """Sizes of the network; what Wan2.1 fixes (patches of 1 x 2 x 2) is not a setting."""

    dim: int = 128
    ffn_dim: int = 256
    num_heads: int = 2
    num_layers: int = 16
    in_dim: int = 16
    text_dim: int = 64
    freq_dim: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(
                f"PreciseCache: dim must be an even multiple of num_heads, got dim {self.dim} "
                f"and num_heads {self.num_heads}. Choose a dim that divides evenly."
            )


def config_of(weights: Mapping[str, torch.Tensor], num_heads: int) -> TinyVideoConfig:
    """The sizes of a state dict's tensors, which do not tell the number of heads."""
    return TinyVideoConfig(
        dim=weights["head.modulation"].shape[-1],
        ffn_dim=weights["blocks.0.ffn.0.weight"].shape[0],
        num_heads=num_heads,
        num_layers=sum(name.endswith("ffn.0.weight") for name in weights),
        in_dim=weights["patch_embedding.weight"].shape[1],
        text_dim=weights["text_embedding.0.weight"].shape[1],
    )


def rotary_table(
    frames: int, rows: int, columns: int, head_dim: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of the 3-D rotary embedding, each (frames * rows * columns, head_dim / 2), float32.

    Source: Wan2.1. Height and width each get a third of the head, rounded down to an even size; time gets the rest.
    """
    spatial = 2 * (head_dim // 6)
    angles = []
    for axis, (length, axis_dim) in enumerate(((frames, head_dim - 2 * spatial), (rows, spatial), (columns, spatial))):
        exponent = torch.arange(0, axis_dim, 2, dtype=torch.float64, device=device) / axis_dim
        position = torch.arange(length, dtype=torch.float64, device=device)
        shape = [1, 1, 1, -1]
        shape[axis] = length
        angles.append(torch.outer(position, 10000.0**-exponent).view(shape))
    table = torch.cat([a.expand(frames, rows, columns, -1) for a in angles], dim=-1)
    table = table.reshape(frames * rows * columns, -1)
    return table.cos().float(), table.sin().float()


def rotate(x: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Apply the rotary embedding to x, (B, L, heads, head_dim), on neighbouring pairs."""
    cos, sin = (part[None, :, None] for part in table)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(x)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention over (B, L, heads, head_dim) tensors; returns (B, L, heads * head_dim)."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    return rearrange(out, "b h l d -> b l (h d)")


class Attention(nn.Module):
    """Self-attention with a rotary embedding, or cross-attention to the text; both normalise q and k."""

    def __init__(self, config: TinyVideoConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(dim, eps=config.eps) for _ in range(2))

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        table: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        source = x if context is None else context
        q, k, v = (
            rearrange(t, "b l (h d) -> b l h d", h=self.num_heads)
            for t in (self.norm_q(self.q(x)), self.norm_k(self.k(source)), self.v(source))
        )
        if table is not None:
            q, k = rotate(q, table), rotate(k, table)
        return self.o(attend(q, k, v))


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward; the noise level modulates the first and the last."""

    def __init__(self, config: TinyVideoConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm1 = nn.LayerNorm(dim, config.eps, elementwise_affine=False)
        self.self_attn = Attention(config)
        self.norm3 = nn.LayerNorm(dim, config.eps)
        self.cross_attn = Attention(config)
        self.norm2 = nn.LayerNorm(dim, config.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, dim)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        x: torch.Tensor,
        modulation: torch.Tensor,
        context: torch.Tensor,
        table: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + modulation).chunk(6, dim=1)
        x = x + gate1 * self.self_attn(self.norm1(x) * (1 + scale1) + shift1, table=table)
        x = x + self.cross_attn(self.norm3(x), context)
        return x + gate2 * self.ffn(self.norm2(x) * (1 + scale2) + shift2)


class Head(nn.Module):
    """The last layer, which turns tokens into patches of 1 x 2 x 2 latent positions."""

    def __init__(self, config: TinyVideoConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, 4 * config.in_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        shift, scale = (self.modulation + embedding[:, None]).chunk(2, dim=1)
        return self.head(self.norm(x) * (1 + scale) + shift)


class TinyVideoModel(nn.Module):
    """Predicts the flow velocity (noise minus data) of a video latent.

    forward(x, t, context): x (B, 16, T, H, W), t (B,) in [0, 1000], context
        (B, tokens, text_dim). Returns (B, 16, T, H, W) in x's dtype. Odd H and W are
        padded by wrapping, as ComfyUI does, and cut back.
    """

    def __init__(self, config: TinyVideoConfig = TinyVideoConfig()) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, (1, 2, 2), (1, 2, 2))
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)

    def embed_time(self, t: torch.Tensor) -> torch.Tensor:
        half = self.config.freq_dim // 2
        frequency = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
        angle = t.float()[:, None] * frequency
        return self.time_embedding(torch.cat((angle.cos(), angle.sin()), -1).to(self.head.head.weight.dtype))

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2, 0, 0), mode="circular")
        tokens = self.patch_embedding(padded)
        frames, rows, columns = tokens.shape[2:]
        tokens = rearrange(tokens, "b c t h w -> b (t h w) c")
        embedding = self.embed_time(t)
        modulation = self.time_projection(embedding).unflatten(1, (6, self.config.dim))
        context = self.text_embedding(context)
        table = rotary_table(frames, rows, columns, self.config.dim // self.config.num_heads, x.device)
        for block in self.blocks:
            tokens = block(tokens, modulation, context, table)
        out = rearrange(
            self.head(tokens, embedding),
            "b (t h w) (p q c) -> b c t (h p) (w q)",
            t=frames,
            h=rows,
            w=columns,
            p=2,
            q=2,
        )
        return out[..., :height, :width]
