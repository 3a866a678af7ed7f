"""The tiny video model's latent codec: fixed, linear, the ratios of Wan2.1's VAE."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

CHANNELS = 16
CELL = 4  # frames per latent frame, and pixels per latent cell before the upsampling by 2


class TinyVideoCodec(nn.Module):
    """16 principal components of 4 x 8 x 8 pixel cells, 8 x smaller in space, 4 x in time.

    Buffers: basis (192, 16), mean (192,), scale (16,). The first latent frame stands for
    one video frame, each further one for four, as in Wan2.1: 4 (T - 1) + 1 frames.
    """

    def __init__(self):
        super().__init__()
        size = 3 * CELL**3
        self.register_buffer("basis", torch.zeros(size, CHANNELS))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(CHANNELS))

    @staticmethod
    def cells(video):
        """(B, 3, 4 (T - 1) + 1, 4 h, 4 w) -> (B, T, h, w, 192), the first frame repeated."""
        video = torch.cat((video[:, :, :1].expand(-1, -1, CELL - 1, -1, -1), video), dim=2)
        return rearrange(
            video, "b c (t f) (h p) (w q) -> b t h w (c f p q)", f=CELL, p=CELL, q=CELL
        )

    def fit(self, video):
        """Take basis and scale from sample clips at 4 pixels a cell, (B, 3, frames, h, w).

        Each component is divided by the root of its standard deviation, and all by one
        number that makes the mean variance 1: half-way to whitening, so that structure
        keeps more of the signal than detail, as it does in learned latents.
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

    def encode_cells(self, video):
        """Clips at 4 pixels a cell, (B, 3, 4 (T - 1) + 1, 4 h, 4 w) in [0, 1] -> (B, 16, T, h, w)."""
        latent = (self.cells(video) - self.mean) @ self.basis / self.scale
        return rearrange(latent, "b t h w c -> b c t h w")

    def encode(self, video):
        """(B, 3, frames, 8 h, 8 w) in [0, 1] -> (B, 16, T, h, w); frames are cut to 4 n + 1."""
        frames = 1 + (video.shape[2] - 1) // CELL * CELL
        return self.encode_cells(F.avg_pool3d(video[:, :, :frames], (1, 2, 2)))

    def decode(self, latent):
        """(B, 16, T, h, w) -> (B, 3, 4 (T - 1) + 1, 8 h, 8 w) in [0, 1]."""
        cells = rearrange(latent, "b c t h w -> b t h w c") * self.scale @ self.basis.T + self.mean
        video = rearrange(
            cells, "b t h w (c f p q) -> b c (t f) (h p) (w q)", c=3, f=CELL, p=CELL, q=CELL
        )[:, :, CELL - 1 :]
        video = F.interpolate(video, scale_factor=(1, 2, 2), mode="trilinear")
        return video.clamp(0, 1)
