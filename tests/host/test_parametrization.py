"""For every ModelSampling of the host, denoised and prediction convert into each other."""

import comfy.model_base
import pytest
import torch
from PreciseCache.nodes.host.parametrization import affine_of, noise_space, part_of_schedule

TYPES = list(comfy.model_base.ModelType)


class ModelConfig:
    sampling_settings = {"shift": 3.0}


@pytest.mark.parametrize("model_type", TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize("percent", (0.05, 0.3, 0.6, 0.95))
def test_round_trip(model_type, percent):
    sampling = comfy.model_base.model_sampling(ModelConfig, model_type)
    sigma = torch.tensor(float(sampling.percent_to_sigma(percent)), dtype=torch.float32)
    x, prediction = torch.randn(2, 1, 4, 8, 8).unbind(0)
    x = x * (1 + sigma)
    denoised = sampling.calculate_denoised(sigma[None], prediction, x)
    a, b = affine_of(sampling)(sigma)
    assert a.ndim == b.ndim == 0
    bound = 1e-6 * (x.abs().max() + denoised.abs().max()) / b.abs()
    assert ((denoised - a * x) / b - prediction).abs().max() <= bound
    assert (a * x + b * prediction - denoised).abs().max() <= 1e-6 * (1 + x.abs().max())


def test_every_sampling_but_img_to_img_has_a_noise_space():
    spaces = {t.name: noise_space(comfy.model_base.model_sampling(ModelConfig, t)) for t in TYPES}
    assert {name for name, space in spaces.items() if space is None} <= {"IMG_TO_IMG", "IMG_TO_IMG_FLOW"}
    assert spaces["FLOW"] == spaces["FLUX"] == "flow"
    assert spaces["EPS"] == spaces["V_PREDICTION"] == spaces["EDM"] == spaces["FLOW_COSMOS"] == "variance_exploding"


@pytest.mark.parametrize("model_type", TYPES, ids=lambda t: t.name)
def test_noise_space_describes_how_the_host_adds_noise(model_type):
    """The host's own noise_scaling makes the x that the space describes."""
    sampling = comfy.model_base.model_sampling(ModelConfig, model_type)
    space = noise_space(sampling)
    if space not in ("flow", "variance_exploding"):
        pytest.skip(f"the host's noise_scaling says nothing about {space}")
    sigma = torch.tensor([float(sampling.percent_to_sigma(0.5))])
    data, noise = torch.randn(2, 1, 4, 8, 8).unbind(0)
    x = sampling.noise_scaling(sigma, noise.clone(), data)
    expected = (1 - sigma) * data + sigma * noise if space == "flow" else data + sigma * noise
    assert torch.allclose(x, expected, atol=1e-6 * (1 + sigma.item()))


@pytest.mark.parametrize("model_type", TYPES, ids=lambda t: t.name)
def test_parts_of_a_schedule_add_up(model_type):
    sampling = comfy.model_base.model_sampling(ModelConfig, model_type)
    middle = float(sampling.percent_to_sigma(0.3))
    ends = float(sampling.percent_to_sigma(0.0)), 0.0
    assert part_of_schedule(sampling, torch.tensor(ends)) == 1
    assert part_of_schedule(sampling, torch.tensor([middle, ends[1]])) == pytest.approx(0.7, abs=2e-3)
    assert part_of_schedule(sampling, torch.tensor([ends[0], middle])) == pytest.approx(0.3, abs=2e-3)
    assert part_of_schedule(object(), torch.tensor(ends)) == 1
