"""The plain Euler sampler that works without ComfyUI."""

import pytest
import torch

from precisecache_core import LFCacheConfig, flow_sigmas, guided, sample_flow


def test_the_schedule_by_hand():
    # shift 3: 3 t / (1 + 2 t)
    expected = torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0])
    torch.testing.assert_close(flow_sigmas(4, shift=3.0), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(flow_sigmas(4), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_guidance_by_hand():
    asked = []

    def velocity(x, t, context):
        asked.append((t.tolist(), context[:, 0, 0].tolist()))
        return context[:, :1, :1] * x

    denoise = guided(velocity, cond=torch.full((1, 1, 1), 3.0), uncond=torch.ones(1, 1, 1), cfg=4.0)
    x = torch.tensor([1.0, 2.0]).view(2, 1, 1)
    # velocity 1 x + 4 (3 x - 1 x) = 9 x, so denoised = x - 0.5 * 9 x
    torch.testing.assert_close(denoise(x, torch.tensor(0.5)), -3.5 * x)
    assert asked == [([500.0] * 4, [3.0, 3.0, 1.0, 1.0])]


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_a_perfect_denoiser_is_followed_to_its_answer(shift):
    data, noise = torch.randn(2, 1, 4, 2, 4, 4)
    x, report = sample_flow(lambda x, sigma: data, noise, flow_sigmas(10, shift))
    torch.testing.assert_close(x, data, rtol=0, atol=1e-6)
    assert report is None


def test_euler_by_hand():
    # velocity = x: each of two steps of -0.5 halves x
    x, _ = sample_flow(lambda x, sigma: x - sigma * x, torch.full((1, 1, 1, 1, 1), 8.0), flow_sigmas(2))
    assert x.item() == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("lfcache", [None, LFCacheConfig()])
def test_each_step_is_told_once_it_is_done(lfcache):
    told, calls = [], []

    def denoise(x, sigma):
        if x.shape[-1] == 16:  # not a trial
            calls.append(len(told))
        return x - sigma * x

    sample_flow(denoise, torch.ones(1, 4, 2, 16, 16), flow_sigmas(10), lfcache, on_step=told.append)
    # the first call comes before the first step is done, the last step may be a reused one
    assert told == [*range(1, 11)] and calls[0] == 0
    assert (calls == [*range(10)]) == (lfcache is None)
