"""The low band of a prediction and the Low-Frequency Difference (LFD)."""

import torch


def low_band_weights(
    height: int, width: int, cutoff_fraction: float, device: torch.device | None = None
) -> torch.Tensor:
    """The weight of each bin of a real 2-D FFT in the energy of the low band.

    Source: PreciseCache, Section 4.1: centred circular mask of radius min(H, W) / 5. Ours: bins on the
    radius belong to the mask, and the radius is at least 1, so that a 4 x 4 latent is not reduced to
    its mean. A bin whose mirror image the real FFT leaves out has weight 2.
    height, width: of the latent. cutoff_fraction: radius over min(H, W), in (0, 0.5].
    Returns (H, W // 2 + 1) float32 on `device`: 0, 1 or 2.
    Raises ValueError if the cutoff is out of range.
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
    weights: the result of `low_band_weights` for this H and W; computed here if None.
    Returns a 0-dim float32 tensor, >= 0.
    Raises ValueError if shapes differ or the cutoff is out of range.
    """
    if current.shape != reference.shape:
        raise ValueError(
            f"PreciseCache: predictions must have equal shapes, got {tuple(current.shape)} and "
            f"{tuple(reference.shape)}. Compare predictions of the same sampling run."
        )
    if weights is None:
        height, width = current.shape[-2:]
        weights = low_band_weights(height, width, cutoff_fraction, current.device)
    spectrum = torch.fft.rfft2(current.float() - reference.float(), norm="ortho")
    energy = spectrum.real.square() + spectrum.imag.square()
    return (energy * weights).sum().sqrt()


class LowBand:
    """Measures LFDs with one cutoff (see `low_frequency_difference`); builds the mask of each size once."""

    def __init__(self, cutoff_fraction: float) -> None:
        self.cutoff_fraction = cutoff_fraction
        self._weights: dict[tuple[int, int], torch.Tensor] = {}

    def difference(self, current: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """LFD of two predictions of equal shape, a 0-dim float32 tensor.

        4-D and 5-D predictions as in `low_frequency_difference`. Any other shape (packed latents) has no
        height and width; the LFD is then the L2 norm over all frequencies.
        """
        if current.ndim not in (4, 5):
            return torch.linalg.vector_norm(current.float() - reference.float())
        return low_frequency_difference(current, reference, self.cutoff_fraction, self._weights_for(current))

    def coefficients(self, predictions: torch.Tensor) -> torch.Tensor:
        """What is left of predictions in the low band: the L2 norm of the difference of two of these is their LFD.

        predictions: (..., H, W). Returns (..., 2, H, W // 2 + 1) float32.
        """
        spectrum = torch.view_as_real(torch.fft.rfft2(predictions.float(), norm="ortho")).movedim(-1, -3)
        return spectrum * self._weights_for(predictions).sqrt()

    def _weights_for(self, predictions: torch.Tensor) -> torch.Tensor:
        height, width = size = (predictions.shape[-2], predictions.shape[-1])
        if size not in self._weights:
            self._weights[size] = low_band_weights(height, width, self.cutoff_fraction, predictions.device)
        return self._weights[size]
