"""The low band of a prediction and the Low-Frequency Difference (LFD)."""

import torch


def low_band_weights(
    height: int, width: int, cutoff_fraction: float, device: torch.device | None = None
) -> torch.Tensor:
    """How often each bin of a real 2-D FFT counts in the energy of the low band.

    Source: PreciseCache, Section 4.1: centred circular mask of radius min(H, W) / 5. The mask includes
    its radius and keeps at least the first ring, so that a 4 x 4 latent is not reduced to its mean
    (ours). Bins that the real FFT leaves out count twice.
    Returns (H, W // 2 + 1) float32: 0, 1 or 2.
    Raises ValueError if the cutoff is outside (0, 0.5].
    """
    if not 0 < cutoff_fraction <= 0.5:
        raise ValueError(f"PreciseCache: cutoff must be in (0, 0.5], got {cutoff_fraction}. The paper uses 0.2.")
    radius = max(1.0, cutoff_fraction * min(height, width))
    rows = torch.fft.fftfreq(height, 1 / height, device=device)[:, None]
    columns = torch.fft.rfftfreq(width, 1 / width, device=device)
    inside = rows**2 + columns**2 <= radius**2 + 1e-6
    mirrored = (columns > 0) & (columns < width / 2)
    return inside.float() * (1 + mirrored.float())


def low_frequency_difference(
    current: torch.Tensor, reference: torch.Tensor, cutoff_fraction: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """L2 norm of the low band of the change between two predictions (LFD).

    Source: PreciseCache, Eq. 2-3; centred circular mask, Section 4.1; orthonormal FFT.
    current, reference: predictions, (B, C, T, H, W) or (B, C, H, W), equal shapes, any float dtype;
        transformed in float32 over the last two axes.
    cutoff_fraction: mask radius over min(H, W), in (0, 0.5].
    weights: what `low_band_weights` returned for this H and W, so that a run builds it once.
    Returns a 0-dim float32 tensor, >= 0.
    Raises ValueError if shapes differ or the cutoff is out of range.
    """
    if current.shape != reference.shape:
        raise ValueError(
            f"PreciseCache: predictions must have one shape, got {tuple(current.shape)} and "
            f"{tuple(reference.shape)}. Compare predictions of the same sampling run."
        )
    if weights is None:
        height, width = current.shape[-2:]
        weights = low_band_weights(height, width, cutoff_fraction, current.device)
    spectrum = torch.fft.rfft2(current.float() - reference.float(), norm="ortho")
    energy = spectrum.real.square() + spectrum.imag.square()
    return (energy * weights).sum().sqrt()


class LowBand:
    """The LFD with one cutoff; builds the mask of each size once."""

    def __init__(self, cutoff_fraction: float) -> None:
        self.cutoff_fraction = cutoff_fraction
        self._weights: dict[tuple[int, int], torch.Tensor] = {}

    def difference(self, current: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """LFD of two predictions as a 0-dim float32 tensor; the whole L2 norm where there is no height and width.

        Shapes as of `low_frequency_difference`, and any other shape (packed latents).
        """
        if current.ndim not in (4, 5):
            return torch.linalg.vector_norm(current.float() - reference.float())
        height, width = size = (current.shape[-2], current.shape[-1])
        if size not in self._weights:
            self._weights[size] = low_band_weights(height, width, self.cutoff_fraction, current.device)
        return low_frequency_difference(current, reference, self.cutoff_fraction, self._weights[size])
