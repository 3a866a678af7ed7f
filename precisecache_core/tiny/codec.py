"""The tiny video model's latent codec: fixed and linear, with the ratios of Wan2.1's VAE."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

CHANNELS = 16
CELL = 4  # frames in a cell, and pixels along each of its sides; the decoder then enlarges by 2


class TinyVideoCodec(nn.Module):
    """Latents hold 16 principal components of cells of 4 frames x 8 x 8 pixels.

    Buffers: basis (192, 16), mean (192,), scale (16,). The first latent frame stands for one video
    frame and each further one for four, as in Wan2.1: T latent frames are 4 (T - 1) + 1 frames.
    """

    basis: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        size = 3 * CELL**3
        self.register_buffer("basis", torch.zeros(size, CHANNELS))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(CHANNELS))

    @staticmethod
    def cells(video: torch.Tensor) -> torch.Tensor:
        """(B, 3, 4 (T - 1) + 1, 4 h, 4 w) -> (B, T, h, w, 192); the first frame is repeated."""
        video = torch.cat((video[:, :, :1].expand(-1, -1, CELL - 1, -1, -1), video), dim=2)
        return rearrange(video, "b c (t f) (h p) (w q) -> b t h w (c f p q)", f=CELL, p=CELL, q=CELL)

    def fit(self, video: torch.Tensor) -> "TinyVideoCodec":
        """Take basis, mean and scale from sample clips at 4 pixels a cell; returns itself.

        video: (B, 3, 4 (T - 1) + 1, 4 h, 4 w) in [0, 1].
        Each component is divided by the root of its standard deviation, and all by one number that
        makes their mean variance 1. This is half-way to whitening: structure keeps more of the
        signal than detail, as it does in learned latents.
        """
        cells = self.cells(video).flatten(0, -2).double()
        self.mean.copy_(cells.mean(0))
        variance, vectors = torch.linalg.eigh(torch.cov((cells - self.mean).T))
        top = variance.argsort(descending=True)[:CHANNELS]
        vectors, deviation = vectors[:, top], variance[top].sqrt()
        # an eigenvector's sign is arbitrary: make its largest entry positive
        vectors *= vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        self.basis.copy_(vectors)
        self.scale.copy_(deviation.sqrt() * deviation.mean().sqrt())
        return self

    def encode_cells(self, video: torch.Tensor) -> torch.Tensor:
        """Clips at 4 pixels a cell, (B, 3, 4 (T - 1) + 1, 4 h, 4 w) in [0, 1] -> (B, 16, T, h, w)."""
        latent = (self.cells(video) - self.mean) @ self.basis / self.scale
        return rearrange(latent, "b t h w c -> b c t h w")

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """(B, 3, frames, 8 h, 8 w) in [0, 1] -> (B, 16, T, h, w); frames beyond 4 n + 1 are cut."""
        frames = 1 + (video.shape[2] - 1) // CELL * CELL
        return self.encode_cells(F.avg_pool3d(video[:, :, :frames], (1, 2, 2)))

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """(B, 16, T, h, w) -> (B, 3, 4 (T - 1) + 1, 8 h, 8 w) in [0, 1]."""
        cells = rearrange(latent, "b c t h w -> b t h w c") * self.scale @ self.basis.T + self.mean
        video = rearrange(cells, "b t h w (c f p q) -> b c (t f) (h p) (w q)", c=3, f=CELL, p=CELL, q=CELL)[
            :, :, CELL - 1 :
        ]
        video = F.interpolate(video, scale_factor=(1, 2, 2), mode="trilinear")
        return video.clamp(0, 1)
