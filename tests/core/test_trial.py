"""The small latent has the noise level that the trial states, and its answer estimates the large latent's."""

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

# factors (signal, level) at a noise level, with which each space defines x = signal * data + level * noise
MIXTURE = {
    FLOW: lambda sigma: (1 - sigma, sigma),
    VARIANCE_EXPLODING: lambda sigma: (1.0, sigma),
    VARIANCE_PRESERVING: lambda sigma: (1 / sqrt(1 + sigma**2), sigma / sqrt(1 + sigma**2)),
}
FACTORS = (2, 4, 4)


@pytest.mark.parametrize(
    "space, sigma",
    [
        (FLOW, 0.3),
        (FLOW, 0.9),
        (VARIANCE_EXPLODING, 0.5),
        (VARIANCE_EXPLODING, 8.0),
        (VARIANCE_PRESERVING, 0.5),
        (VARIANCE_PRESERVING, 8.0),
    ],
)
def test_the_shown_latent_is_on_the_schedule_at_sigma_small(space, sigma):
    small_data = torch.randn(1, 16, 4, 16, 16)
    data = small_data.repeat_interleave(2, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    noise = torch.randn_like(data)
    signal, level = MIXTURE[space](sigma)
    trial = make_trial(signal * data + level * noise, torch.tensor(sigma), FACTORS, space, 0.0, True)

    signal, level = MIXTURE[space](trial.sigma.item())
    # exactly: the remainder after the expected signal is the pooled noise, whose power is 32 times lower
    white = shrink_latent(noise, FACTORS) * sqrt(32)
    torch.testing.assert_close(trial.x, signal * small_data + level * white, rtol=1e-5, atol=1e-5)
    # statistically: 16384 samples give a standard deviation to about half a percent
    assert (trial.x - signal * small_data).std().item() == pytest.approx(level, rel=0.03)
    assert trial.sigma < sigma


def test_flow_at_the_ends_of_the_schedule():
    scale, sigma_small = match_snr(FLOW, torch.tensor([0.0, 1.0]), 32)
    # without noise there is nothing to match; pure noise is rescaled to unit variance and stays pure noise
    torch.testing.assert_close(scale, torch.tensor([1.0, 1 / sqrt(32)]), rtol=1e-6, atol=0)
    torch.testing.assert_close(sigma_small, torch.tensor([0.0, 1.0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("space", MIXTURE)
def test_pooling_by_one_changes_nothing(space):
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


def test_the_prediction_inverts_any_affine():
    trial = Trial(pooled=torch.tensor([10.0]), x=torch.tensor([5.0]), sigma=torch.tensor(1.0))
    # 4 = 3 * 10 + 2 * prediction
    assert trial.prediction(torch.tensor([4.0]), (torch.tensor(3.0), torch.tensor(2.0))) == -13


def test_sigma_small_is_at_least_the_models_smallest_sigma():
    x = torch.randn(1, 4, 4, 8, 8)
    for sigma, expected in ((0.02, 0.02 / sqrt(32)), (0.002, 0.001)):
        trial = make_trial(x, torch.tensor(sigma), FACTORS, VARIANCE_EXPLODING, 0.001, True)
        assert trial.sigma.item() == pytest.approx(expected, rel=1e-6)


def test_the_plain_trial_leaves_latent_and_sigma_as_they_are():
    x, sigma = torch.randn(1, 4, 4, 8, 8), torch.tensor(0.4)
    trial = make_trial(x, sigma, FACTORS, FLOW, 0.5, False)
    assert torch.equal(trial.x, shrink_latent(x, FACTORS)) and torch.equal(trial.pooled, trial.x)
    assert trial.sigma == sigma
