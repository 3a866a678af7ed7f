"""What each strategy gives in place of a computed prediction, on values that tell the strategies apart."""

import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from precisecache_core import LFCacheConfig
from precisecache_core.lfcache.predictions import Predictions
from precisecache_core.lfcache.reuse import REUSES


def field(value):
    return torch.full((1, 2, 2, 2), float(value))


def stored(reuse, *calls):
    """A cache after calls of (x, sigma, prediction), each a number."""
    cache = REUSES[reuse]()
    for x, sigma, prediction in calls:
        cache.store(field(x), sigma, field(prediction))
    return cache


@pytest.mark.parametrize(
    "reuse, expected",
    [
        ("prediction", 44.0),  # the last prediction, unchanged
        ("residual", 45.0),  # 44 - 10 + 11
        ("taylor", 52.0),  # 40 at 1.0 and 44 at 0.9, extrapolated by two steps of 0.1
        ("fitted", 44.0),  # no forecast has been checked yet
    ],
)
def test_each_strategy_by_hand(reuse, expected):
    cache = stored(reuse, (8, 1.0, 40), (10, 0.9, 44))
    torch.testing.assert_close(cache.predict(field(11), 0.7), field(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("reuse", ("taylor", "fitted"))
def test_a_linear_prediction_is_followed_exactly_over_uneven_steps(reuse):
    start, slope = torch.randn(2, 1, 2, 4, 4)
    cache = REUSES[reuse]()
    for sigma in (1.0, 0.75, 0.7):
        cache.store(start, sigma, start + sigma * slope)
    torch.testing.assert_close(cache.predict(start, 0.65), start + 0.65 * slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "third, expected",
    [
        (48, 56),  # the forecast 44 + 4 came true: gain 1, so 48 + 2 x 4
        (46, 47),  # half of the forecast change came: gain 1/2 per step, so 1/4 of the new slope 2 two steps later
        (40, 40),  # the opposite change came: gain 0, so the last prediction unchanged
        (60, 92),  # more than the forecast change came: gain 1 of the new slope 16
    ],
)
def test_fitted_follows_the_trend_as_far_as_it_held(third, expected):
    cache = stored("fitted", (0, 1.0, 40), (0, 0.9, 44), (0, 0.8, third))
    torch.testing.assert_close(cache.predict(field(0), 0.6), field(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("sigma, expected", [(0.75, 46 + 1 * 0.5**0.5), (0.7, 46 + 2 * 0.5), (0.5, 46 + 6 * 0.5**3)])
def test_fitted_trusts_a_trend_less_the_farther_it_extrapolates(sigma, expected):
    cache = stored("fitted", (0, 1.0, 40), (0, 0.9, 44), (0, 0.8, 46))  # half of the forecast change of 4 came
    torch.testing.assert_close(cache.predict(field(0), sigma), field(expected), rtol=1e-5, atol=0)


def test_fitted_scales_its_trust_by_the_distance_it_was_measured_over():
    cache = stored("fitted", (0, 1.0, 40), (0, 0.9, 44), (0, 0.6, 50))  # half of the forecast change of 3 x 4 came
    torch.testing.assert_close(cache.predict(field(0), 0.3), field(50 + 6 * 0.5 ** (1 / 3)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", (float("nan"), float("inf"), 4.0))
def test_fitted_works_after_a_forecast_that_cannot_be_judged(value):
    # equal predictions forecast no change; a prediction that is not finite cannot be compared
    cache = stored("fitted", (0, 1.0, 4), (0, 0.9, 4), (0, 0.8, value), (0, 0.7, 4), (0, 0.6, 4), (0, 0.5, 4))
    assert torch.equal(cache.predict(field(0), 0.4), field(4))


def test_taylor_repeats_the_only_prediction_it_has():
    assert torch.equal(stored("taylor", (0, 1.0, 4)).predict(field(0), 0.5), field(4))


def test_a_second_call_at_one_sigma_replaces_the_first_and_corrects_the_slope():
    cache = stored("taylor", (0, 1.0, 40), (0, 0.9, 45), (0, 0.9, 44))
    torch.testing.assert_close(cache.predict(field(0), 0.8), field(48), rtol=1e-6, atol=0)


def test_two_calls_at_the_first_sigma_give_no_slope():
    assert torch.equal(stored("taylor", (0, 1.0, 40), (0, 1.0, 44)).predict(field(0), 0.9), field(44))


@pytest.mark.parametrize("reuse, count", [("prediction", 1), ("residual", 1), ("taylor", 2), ("fitted", 2)])
def test_only_the_needed_predictions_are_held(reuse, count):
    cache = REUSES[reuse]()
    assert cache.cache_bytes == 0
    seen = []
    for call in range(4):
        cache.store(field(0), 1 - call / 10, field(call))
        seen += [weakref.ref(t) for t in vars(cache).values() if isinstance(t, torch.Tensor) and t.numel() > 1]
    assert len({id(r()) for r in seen if r() is not None}) == count
    assert cache.cache_bytes == count * field(0).nbytes


@pytest.mark.parametrize("reuse", ["prediction", "residual", "taylor", "fitted"])
def test_tensors_handed_over_stay_unchanged(reuse):
    x, prediction = field(1), field(4)
    cache = REUSES[reuse]()
    cache.store(x, 1.0, prediction)
    cache.store(field(2), 0.9, field(5))
    cache.predict(x, 0.8)
    assert torch.equal(x, field(1)) and torch.equal(prediction, field(4))


def test_a_cache_matches_its_own_shape_and_dtype_only():
    assert not REUSES["taylor"]().matches(field(0))
    cache = stored("taylor", (0, 1.0, 4))
    assert cache.matches(field(7))
    assert not cache.matches(field(7)[..., :1])
    assert not cache.matches(field(7).bfloat16())


@pytest.mark.parametrize("reuse", ["prediction", "residual", "taylor", "fitted"])
def test_a_cache_on_the_cpu_answers_on_the_device_of_x(reuse):
    cache = REUSES[reuse]("cpu")
    for sigma in (1.0, 0.9):
        cache.store(field(1), sigma, field(4))
    assert cache.predict(field(2).to("meta"), 0.8).device.type == "meta"


@pytest.mark.parametrize("reuse", REUSES)
def test_predictions_kept_on_the_cpu_answer_calls_on_a_gpu(reuse):
    """Fake tensors have a device, and refuse to be mixed with those of another one, without a GPU."""
    levels = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.0)
    with FakeTensorMode():
        kept = Predictions(LFCacheConfig(reuse=reuse, cache_device="cpu"), True, levels)
        for sigma in levels[:-1]:
            x = torch.randn(2, 4, 2, 8, 8, device="cuda")
            if sigma in (0.7, 0.5):
                answers = kept.predict(x, sigma, with_uncond=True)
            else:
                answers = kept.store(x, sigma, torch.randn_like(x), torch.randn_like(x))
            assert {answer.device.type for answer in answers} == {"cuda"}
        assert kept.guided.current.device.type == "cpu"
