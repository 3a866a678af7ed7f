"""A run that leaves little to reuse says what to expect, once."""

import pytest
from PreciseCache.nodes.host.few_steps import few_step_file, what_to_expect
from PreciseCache.nodes.host.prompt import Prompt
from PreciseCache.nodes.lfcache import PreciseCacheLFCache

EMPTY = Prompt()


def prompt_with(name, kind="LoraLoaderModelOnly", key="lora_name"):
    """A prompt in which a sampler's model comes through LFCache from a node that loads this file."""
    return Prompt(
        "prompt",
        "3",
        {
            "1": {"class_type": kind, "inputs": {key: name, "strength_model": 1.0}},
            "2": {"class_type": "PreciseCacheLFCache", "inputs": {"model": ["1", 0], "preset": "turbo"}},
            "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0]}},
            "4": {"class_type": "LoraLoader", "inputs": {"lora_name": "lightning.safetensors"}},  # another branch
        },
    )


@pytest.mark.parametrize(
    "name",
    [
        "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors",
        "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors",
        "loras/Wan21_CausVid_14B_T2V_lora_rank32.safetensors",
        "loras\\Wan2.2-Lightning.safetensors",
        "hunyuanvideo1.5_1080p_sr_distilled_fp16.safetensors",
        "z_image_turbo_bf16.gguf",
    ],
)
def test_a_few_step_lora_or_model_is_known_by_its_name(name):
    prompt = prompt_with(name)
    assert name.endswith(few_step_file(prompt))
    config = base()
    assert "made for few steps" in what_to_expect(config, 20, 1.0, prompt)
    assert what_to_expect(config, 4, 1.0, prompt) is None  # LFCache stands aside and says so


@pytest.mark.parametrize(
    "name",
    [
        "wan2.1_t2v_1.3B_fp16.safetensors",
        "hunyuan_video_720_cfgdistill_fp8_e4m3fn.safetensors",
        "hunyuanvideo1.5_480p_t2v_cfg_distilled_fp16.safetensors",
        "lightning",  # not a file
    ],
)
def test_other_names_are_not(name):
    assert few_step_file(prompt_with(name)) is None


def base():
    from PreciseCache.precisecache_core.lfcache.config import LFCacheConfig

    return LFCacheConfig.from_preset("base")


@pytest.mark.parametrize(
    "steps, part, expected",
    [
        (7, 1.0, None),
        (8, 1.0, "a schedule of 8 steps is short: 8 of 8 are computed"),
        (12, 1.0, "a schedule of 12 steps is short: 9 of 12 are computed"),
        (13, 1.0, None),
        (10, 0.5, None),  # one of two experts with 20 steps together
        (8, 0.8, "a schedule of 10 steps"),
    ],
)
def test_short_schedules_say_what_to_expect(steps, part, expected):
    found = what_to_expect(base(), steps, part, EMPTY)
    assert found is None if expected is None else found.startswith(expected)


@pytest.mark.parametrize("steps, is_said", [(10, True), (16, False)])
def test_the_report_of_a_short_run_says_it_once(bench, steps, is_said):
    model = PreciseCacheLFCache.execute(bench.model, "base", 0.5, 0.4).result[0]
    bench.sample(model, steps=steps)
    run = bench.report(model)
    assert run["expectation"] == (
        "a schedule of 10 steps is short: 9 of 10 are computed; 20 steps or more save more" if is_said else None
    )
    assert run["warnings"] == []


def test_off_says_nothing(bench):
    model = PreciseCacheLFCache.execute(bench.model, "off", 0.5, 0.4).result[0]
    bench.sample(model, steps=10)
    run = bench.report(model)
    assert run["warnings"] == [] and run["expectation"] is None
