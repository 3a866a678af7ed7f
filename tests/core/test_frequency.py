"""The LFD against a plain NumPy FFT, and the values that follow from its definition."""

import numpy as np
import pytest
import torch

from precisecache_core.lfcache.latent.frequency import low_band_weights, low_frequency_difference

SHAPES = [
    (2, 3, 8, 8),
    (1, 2, 7, 9),
    (1, 4, 12, 5),
    (1, 2, 3, 16, 16),
    (2, 4, 2, 15, 8),
    (1, 2, 1, 4, 4),
    (1, 16, 4, 3, 30),
]


def lfd_by_numpy(difference, cutoff):
    """The LFD from the full spectrum, with the zero frequency in the centre and a circular mask around it."""
    height, width = difference.shape[-2:]
    spectrum = np.fft.fftshift(np.fft.fft2(difference.astype(np.float64), norm="ortho"), axes=(-2, -1))
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height // 2, columns - width // 2)
    inside = distance <= max(1, cutoff * min(height, width)) + 1e-9
    return np.linalg.norm((spectrum * inside).ravel())


@pytest.mark.parametrize("cutoff", [0.05, 0.2, 1 / 3, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_numpy_reference(shape, cutoff):
    current, reference = torch.randn(shape), torch.randn(shape)
    expected = lfd_by_numpy((current - reference).numpy(), cutoff)
    assert low_frequency_difference(current, reference, cutoff).item() == pytest.approx(expected, rel=1e-5)


def test_precomputed_weights_give_the_same():
    current, reference = torch.randn(2, 1, 2, 4, 10, 6)
    weights = low_band_weights(10, 6, 0.3)
    assert torch.equal(
        low_frequency_difference(current, reference, 0.3, weights), low_frequency_difference(current, reference, 0.3)
    )


def test_a_4_by_4_latent_keeps_the_mean_and_the_first_ring():
    # 0.2 * 4 < 1: the mean and its four neighbours
    assert low_band_weights(4, 4, 0.2).sum() == 5


def test_a_constant_offset_counts_in_full():
    x = torch.randn(1, 2, 3, 6, 5)
    lfd = low_frequency_difference(x + 0.5, x, 0.2)
    assert lfd.item() == pytest.approx(0.5 * (2 * 3 * 6 * 5) ** 0.5, rel=1e-6)


def test_a_checkerboard_does_not_count():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checkerboard = ((-1.0) ** (rows + columns)).expand(1, 2, 3, 8, 8)
    assert low_frequency_difference(checkerboard, torch.zeros_like(checkerboard), 0.5).item() < 1e-5


def test_equal_predictions_give_zero():
    x = torch.randn(1, 2, 8, 8)
    assert low_frequency_difference(x, x.clone(), 0.2) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_float32(dtype):
    # neither format can represent 4095: a difference in half precision would be 4096
    large, small = (torch.full((1, 1, 1, 4, 4), v, dtype=dtype) for v in (4096, 1))
    lfd = low_frequency_difference(large, small, 0.2)
    assert lfd.dtype == torch.float32 and lfd.ndim == 0
    assert lfd.item() == pytest.approx(4095 * 4, rel=1e-6)


def test_inputs_stay_unchanged():
    current, reference = torch.randn(2, 1, 2, 8, 8)
    before = current.clone(), reference.clone()
    low_frequency_difference(current, reference, 0.2)
    assert torch.equal(current, before[0]) and torch.equal(reference, before[1])


def test_different_shapes_raise():
    with pytest.raises(ValueError, match=r"^PreciseCache: .*\(1, 2, 8, 8\).*\(1, 1, 8, 8\)"):
        low_frequency_difference(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8), 0.2)


@pytest.mark.parametrize("cutoff", [0, -0.1, 0.51, float("nan")])
def test_a_cutoff_out_of_range_raises(cutoff):
    with pytest.raises(ValueError, match=f"^PreciseCache: cutoff .*{cutoff}"):
        low_frequency_difference(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), cutoff)
