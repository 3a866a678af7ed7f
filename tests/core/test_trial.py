"""The small latent is where the noise schedule says it is, and its answer stands for the large one."""

from math import sqrt

import pytest
import torch

from precisecache_core.lfcache.latent.shrink import shrink_latent
from precisecache_core.lfcache.latent.trial import (
    FLOW,
    VARIANCE_EXPLODING,
    VARIANCE_PRESERVING,
    Trial,
    make_trial,
    match_snr,
)

# (signal, noise) at a noise level, as each space defines x = signal * data + noise * noise
MIXTURE = {
    FLOW: lambda sigma: (1 - sigma, sigma),
    VARIANCE_EXPLODING: lambda sigma: (1.0, sigma),
    VARIANCE_PRESERVING: lambda sigma: (1 / sqrt(1 + sigma**2), sigma / sqrt(1 + sigma**2)),
}
FACTORS = (2, 4, 4)


@pytest.mark.parametrize("space, sigma", [
    (FLOW, 0.3), (FLOW, 0.9), (VARIANCE_EXPLODING, 0.5), (VARIANCE_EXPLODING, 8.0),
    (VARIANCE_PRESERVING, 0.5), (VARIANCE_PRESERVING, 8.0),
])
def test_the_shown_latent_is_on_the_schedule_at_sigma_small(space, sigma):
    small_data = torch.randn(1, 16, 4, 16, 16)
    data = small_data.repeat_interleave(2, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    noise = torch.randn_like(data)
    signal, level = MIXTURE[space](sigma)
    trial = make_trial(signal * data + level * noise, torch.tensor(sigma), FACTORS, space, 0.0, True)

    signal, level = MIXTURE[space](trial.sigma.item())
    # exactly: what is left beside the expected signal is the pooled noise, 32 times weaker in power
    white = shrink_latent(noise, FACTORS) * sqrt(32)
    torch.testing.assert_close(trial.x, signal * small_data + level * white, rtol=1e-5, atol=1e-5)
    # statistically: 16384 samples know a standard deviation to half a percent
    assert (trial.x - signal * small_data).std().item() == pytest.approx(level, rel=0.03)
    assert trial.sigma < sigma


def test_flow_at_the_ends_of_the_schedule():
    scale, sigma_small = match_snr(FLOW, torch.tensor([0.0, 1.0]), 32)
    # no noise: nothing to match; only noise: rescaled to unit variance, still only noise
    torch.testing.assert_close(scale, torch.tensor([1.0, 1 / sqrt(32)]), rtol=1e-6, atol=0)
    torch.testing.assert_close(sigma_small, torch.tensor([0.0, 1.0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("space", MIXTURE)
def test_nothing_pooled_changes_nothing(space):
    scale, sigma_small = match_snr(space, torch.tensor(0.7), 1)
    assert scale.item() == pytest.approx(1, rel=1e-6) and sigma_small.item() == pytest.approx(0.7, rel=1e-6)


def test_an_unknown_space_raises():
    with pytest.raises(ValueError, match="^PreciseCache: unknown noise space 'latent'"):
        match_snr("latent", torch.tensor(0.5), 32)


@pytest.mark.parametrize("is_snr_matched", [True, False])
def test_a_perfect_small_model_gives_the_pooled_velocity(is_snr_matched):
    data, noise = torch.randn(2, 1, 4, 4, 8, 8)
    sigma = torch.tensor(0.6)
    trial = make_trial(0.4 * data + 0.6 * noise, sigma, FACTORS, FLOW, 0.0, is_snr_matched)
    small_data, small_noise = shrink_latent(data, FACTORS), shrink_latent(noise, FACTORS)
    velocity = trial.prediction(small_data, (torch.ones(()), -sigma))
    torch.testing.assert_close(velocity, small_noise - small_data, rtol=0, atol=1e-6)


def test_the_prediction_undoes_any_affine():
    trial = Trial(pooled=torch.tensor([10.0]), x=torch.tensor([5.0]), sigma=torch.tensor(1.0))
    # 4 = 3 * 10 + 2 * prediction
    assert trial.prediction(torch.tensor([4.0]), (torch.tensor(3.0), torch.tensor(2.0))) == -13


def test_sigma_small_stops_at_the_models_smallest():
    x = torch.randn(1, 4, 4, 8, 8)
    for sigma, expected in ((0.02, 0.02 / sqrt(32)), (0.002, 0.001)):
        trial = make_trial(x, torch.tensor(sigma), FACTORS, VARIANCE_EXPLODING, 0.001, True)
        assert trial.sigma.item() == pytest.approx(expected, rel=1e-6)


def test_the_plain_trial_leaves_latent_and_sigma_as_they_are():
    x, sigma = torch.randn(1, 4, 4, 8, 8), torch.tensor(0.4)
    trial = make_trial(x, sigma, FACTORS, FLOW, 0.5, False)
    assert torch.equal(trial.x, shrink_latent(x, FACTORS)) and torch.equal(trial.pooled, trial.x)
    assert trial.sigma == sigma
