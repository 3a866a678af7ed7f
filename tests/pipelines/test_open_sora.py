"""The caches in Open-Sora's sampling loop, with a small model that takes STDiT3's arguments."""

import copy
from types import SimpleNamespace

import pytest
import torch
from rflow import COMPUTED, SCALE, SHAPE, SHIFT, STEPS, TinySTDiT3, arguments, distance, sample, scheduler_of, start
from torch import nn

from precisecache_core import BlockCacheConfig, LFCacheConfig, flow_sigmas, sample_flow
from precisecache_core.pipelines import open_sora
from precisecache_core.pipelines.open_sora import CachedSTDiT3
from precisecache_core.pipelines.rflow_run import noise_levels


@pytest.fixture
def model():
    return TinySTDiT3().requires_grad_(False)


@pytest.mark.parametrize("settings", [{"preset": "off"}, {"preset": "custom", "alpha": 0.0}])
@pytest.mark.parametrize("mask", [None, torch.tensor([[0.0, 1, 1, 1, 0.4]])])
def test_without_reuse_nothing_changes(model, settings, mask):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, **settings)
    assert torch.equal(sample(cached, scheduler, start(), mask=mask), sample(model, scheduler, start(), mask=mask))
    (run,) = cached.report()["runs"]
    assert run["decisions"] == "C" * STEPS
    assert (run["trials"] > 0) == (settings["preset"] == "custom" and mask is None)


@pytest.mark.parametrize("preset, alpha", [("base", None), ("turbo", None), ("custom", 3.0), ("paper", 3.0)])
def test_the_sampler_gets_what_the_cores_own_loop_computes(model, preset, alpha):
    scheduler, args = scheduler_of(), arguments()

    def denoise(x, sigma):
        small = {"height": x.shape[-2] * 8.0, "width": x.shape[-1] * 8.0, "fps": 24.0 if len(x[0, 0]) == 5 else 12.0}
        changed = {**args, **{name: torch.tensor([value]) for name, value in small.items()}}
        out = model(torch.cat((x, x)), (1000 * sigma).expand(2), **changed)
        cond, null = out[:, :4].chunk(2)
        return x + sigma * (null + SCALE * (cond - null))

    config = LFCacheConfig.from_preset(preset, alpha)
    expected, entry = sample_flow(denoise, start(), flow_sigmas(STEPS, SHIFT), config)
    cached = CachedSTDiT3(model, scheduler, preset, alpha=alpha)
    found = sample(cached, scheduler, start())
    (run,) = cached.report()["runs"]
    assert (run["decisions"], run["trials"]) == (entry["decisions"], entry["trials"])
    assert "R" in run["decisions"]
    assert any(run["corrections"]) == (preset != "paper")
    assert distance(found, expected) < 1e-5


def test_base_computes_what_it_plans_and_stays_near(model):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler)
    found, expected = sample(cached, scheduler, start()), sample(model, scheduler, start())
    (run,) = cached.report()["runs"]
    assert (run["computed"], run["reused"], run["calls"]) == (COMPUTED, STEPS - COMPUTED, STEPS)
    assert run["warnings"] == [] and run["model"] == "TinySTDiT3" and run["latent_shape"] == list(SHAPE)
    assert 0 < distance(found, expected) < 0.01


def test_under_autocast_steps_are_reused_after_trials(model):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler)
    exact = sample(cached, scheduler, start())
    with torch.autocast("cpu", torch.bfloat16):
        found = sample(cached, scheduler, start())
    first, second = cached.report()["runs"]
    assert second["trials"] == first["trials"] == STEPS and second["reused"] and second["warnings"] == []
    assert 0 < distance(found, exact) < 0.05


def test_both_branches_get_the_same_answer_in_a_reused_step(model):
    scheduler, answers = scheduler_of(), []
    cached = CachedSTDiT3(model, scheduler)

    def watched(*args, **kwargs):
        answers.append(cached(*args, **kwargs))
        return answers[-1]

    sample(watched, scheduler, start())
    decisions = cached.report()["runs"][0]["decisions"]
    assert [out.shape for out in answers] == [(2, 8, *SHAPE[2:])] * STEPS
    is_same = [torch.equal(out[:1, :4], out[1:, :4]) for out in answers]
    assert all(same for same, decision in zip(is_same, decisions) if decision == "R")
    assert not is_same[0]  # the model's own answer


def test_residual_reuse_by_hand(model):
    """The prediction is the network's own, data - noise: a reused one is F_last - x_last + x."""
    scheduler, seen = scheduler_of(), []
    cached = CachedSTDiT3(model, scheduler, "budget", reuse="residual")

    def watched(x, *args, **kwargs):
        out = cached(x, *args, **kwargs)
        cond, null = out[:, :4].chunk(2)
        seen.append((x[:1], null + SCALE * (cond - null)))
        return out

    sample(watched, scheduler, start())
    decisions = cached.report()["runs"][0]["decisions"]
    reused = [i for i, decision in enumerate(decisions) if decision == "R"]
    assert len(reused) == 18
    for i in reused:
        x, prediction = seen[decisions.rindex("C", 0, i)]
        torch.testing.assert_close(seen[i][1], prediction - x + seen[i][0], rtol=1e-4, atol=1e-4)


def test_trials_have_arguments_of_their_own_size(model):
    scheduler = scheduler_of()
    sample(CachedSTDiT3(model, scheduler), scheduler, start((2, *SHAPE[1:])))
    trials = [ask for ask in model.asked if ask[0][-1] != 16]
    assert len(trials) == STEPS
    for shape, timestep, args in trials:
        # 5 frames give 2 cells of 2
        assert shape == (4, 4, 2, 4, 4) and timestep.shape == (4,)
        assert args["height"].tolist() == args["width"].tolist() == [32.0, 32.0]
        assert args["fps"].tolist() == [12.0, 12.0] and args["ar"].tolist() == [1.0, 1.0]
        assert args["num_frames"].tolist() == pytest.approx([17 * 2 / 5] * 2)
    # pooling 32 positions divides the noise by the root of 32
    small = flow_sigmas(STEPS, SHIFT)[:-1] / 32**0.5
    expected = small / (1 - flow_sigmas(STEPS, SHIFT)[:-1] + small)
    torch.testing.assert_close(torch.stack([ask[1][0] for ask in trials]), 1000 * expected, rtol=1e-4, atol=0.0)
    full = [ask[2] for ask in model.asked if ask[0][-1] == 16]
    assert len(full) == COMPUTED
    assert all(args["height"].tolist() == [128.0, 128.0] and args["fps"].tolist() == [24.0, 24.0] for args in full)


def test_trials_hold_whole_patches(model):
    scheduler = scheduler_of()
    CachedSTDiT3(model, scheduler)(start((2, 4, 5, 20, 16)), torch.full((2,), 1000.0), **arguments())
    # 20 rows give 5 cells of 4; a patch takes two of them
    assert len(model.asked) == STEPS + 1 and {ask[0][3] for ask in model.asked[:-1]} == {4}
    assert model.asked[0][2]["height"].item() == pytest.approx(128 * 4 / 20)


def test_no_graph_is_kept():
    model, scheduler = TinySTDiT3(), scheduler_of()
    assert not sample(CachedSTDiT3(model, scheduler), scheduler, start()).requires_grad


def test_flash_skips_blocks(model):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, "flash")
    found = sample(cached, scheduler, start())
    (run,) = cached.report()["runs"]
    # 2 of 6 blocks; the third computed call is the first refresh
    assert run["blockcache"]["blocks"] == 6 and {len(kept) for kept in run["blockcache"]["pivotal"]} == {4}
    calls = sum(block.calls for blocks in (model.spatial_blocks, model.temporal_blocks) for block in blocks)
    skipped = run["blockcache"]["block_calls_skipped"]
    assert skipped > 0 and calls == 6 * (run["computed"] + run["trials"]) - skipped
    assert distance(found, sample(model, scheduler, start())) < 0.2
    assert all("forward" not in vars(block) for block in [*model.spatial_blocks, *model.temporal_blocks])


def test_blocks_are_ranked_in_the_order_of_the_model():
    model = TinySTDiT3(depth=2).requires_grad_(False)
    for parameter in model.temporal_blocks[0].layers[-1].parameters():
        parameter *= 0.01  # the second block adds the least
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, "off", blockcache=BlockCacheConfig(cache_rate=0.25))
    sample(cached, scheduler, start())
    (run,) = cached.report()["runs"]
    # the third call is a refresh, and then every fourth
    assert run["blockcache"]["pivotal"] == [[0, 2, 3]] * 7
    calls = [block.calls for block in (*model.spatial_blocks, *model.temporal_blocks)]
    assert calls == [STEPS, STEPS, 2 + 7, STEPS]


def test_a_model_without_known_blocks(model):
    del model.temporal_blocks
    model.temporal_blocks = ()
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, "flash")
    sample(cached, scheduler, start())
    (run,) = cached.report()["runs"]
    assert run["standing_aside"] == ["blockcache"] and "R" in run["decisions"]
    assert any("the blocks of TinySTDiT3 are not known" in text for text in run["warnings"])


def test_every_run_begins_anew(model):
    scheduler = scheduler_of()
    with CachedSTDiT3(model, scheduler) as cached:
        first, second = sample(cached, scheduler, start()), sample(cached, scheduler, start())
        assert torch.equal(first, second)
        scheduler.num_sampling_steps = 20
        sample(cached, scheduler, start())
    first, second, third = cached.report()["runs"]
    assert first["decisions"] == second["decisions"] and first["run"] != second["run"]
    assert (third["steps"], third["calls"]) == (20, 20) and "R" in third["decisions"]


def test_only_the_last_reports_are_kept(model, monkeypatch):
    monkeypatch.setattr(open_sora, "LIMIT", 2)
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, "off")
    for steps in (8, 9, 10):
        scheduler.num_sampling_steps = steps
        sample(cached, scheduler, start())
    assert [run["steps"] for run in cached.report()["runs"]] == [9, 10]


def test_the_part_of_the_schedule_in_which_the_caches_act(model):
    scheduler, counts = scheduler_of(), []
    cached = CachedSTDiT3(model, scheduler, start_percent=0.5)
    sample(cached, scheduler, start())
    decisions = cached.report()["runs"][0]["decisions"]
    # half of the steps are 14.5; the first inside the window is computed too
    assert decisions[:16] == "C" * 16 and "R" in decisions
    cached = CachedSTDiT3(model, scheduler, "off", blockcache=BlockCacheConfig(start_percent=0.5))

    def watched(*args, **kwargs):
        out = cached(*args, **kwargs)
        counts.append(cached.report()["runs"][0]["blockcache"]["block_calls_skipped"])
        return out

    sample(watched, scheduler, start())
    assert not any(counts[:14]) and counts[-1] > 0


def test_an_error_in_mid_run(model):
    scheduler = scheduler_of()
    expected = sample(CachedSTDiT3(model, scheduler, "flash"), scheduler, start())
    model.asked.clear()
    cached = CachedSTDiT3(model, scheduler, "flash")
    model.fails_at = 6
    with pytest.raises(RuntimeError, match="a failure"):
        sample(cached, scheduler, start())
    assert cached._run is None
    model.fails_at = None
    assert torch.equal(sample(cached, scheduler, start()), expected)
    broken, whole = cached.report()["runs"]
    assert broken["computed"] == 5 and whole["calls"] == STEPS  # the sixth never ended
    assert whole["decisions"].startswith(broken["decisions"])
    assert all("forward" not in vars(block) for block in [*model.spatial_blocks, *model.temporal_blocks])


def test_a_run_that_the_sampler_breaks_off(model):
    scheduler = scheduler_of()
    expected = sample(CachedSTDiT3(model, scheduler), scheduler, start())
    for calls in (1, 7):
        cached = CachedSTDiT3(model, scheduler)
        sample(cached, scheduler, start(), levels=flow_sigmas(STEPS, SHIFT)[: calls + 1])
        assert cached.report()["runs"][0]["calls"] == calls  # it may still go on
        assert torch.equal(sample(cached, scheduler, start()), expected)
        assert [run["calls"] for run in cached.report()["runs"]] == [calls, STEPS]


def test_memory_is_free_after_the_last_step(model):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, "flash")
    levels = flow_sigmas(STEPS, SHIFT)
    sample(cached, scheduler, start(), levels=levels[:10])
    run = cached._run
    assert run.cached.lfcache.cache_bytes > 0
    cached.end()
    assert run.cached.lfcache.cache_bytes == 0 and run.cached.blockcache.cache_bytes == 0
    sample(cached, scheduler, start(), levels=levels[:2])
    run = cached._run
    assert run._first is not None
    cached.end()
    assert run._first is None
    sample(cached, scheduler, start())
    assert cached._run is None


def test_a_latent_in_half_precision_for_the_first_step(model):
    """RFLOW's latent has the model's dtype in the first step and float32 in all others."""
    scheduler, z = scheduler_of(), start().bfloat16()
    cached = CachedSTDiT3(model, scheduler)
    found = sample(cached, scheduler, z)
    (run,) = cached.report()["runs"]
    assert run["computed"] == COMPUTED and run["warnings"] == []
    assert distance(found, sample(model, scheduler, z)) < 0.01


def test_a_mask_that_keeps_nothing_clean_changes_nothing(model):
    """Open-Sora's script always gives a mask, of ones for text to video."""
    scheduler = scheduler_of()
    plain, masked = CachedSTDiT3(model, scheduler), CachedSTDiT3(model, scheduler)
    expected = sample(plain, scheduler, start())
    torch.testing.assert_close(sample(masked, scheduler, start(), mask=torch.ones(1, 5)), expected)
    (a,), (b,) = plain.report()["runs"], masked.report()["runs"]
    assert (a["decisions"], a["trials"]) == (b["decisions"], b["trials"]) and b["trials"] == STEPS


def test_clean_frames_are_kept_and_not_tried(model):
    scheduler, mask = scheduler_of(), torch.tensor([[0.0, 1, 1, 1, 1]])
    cached = CachedSTDiT3(model, scheduler)
    found, expected = (sample(m, scheduler, start(), mask=mask) for m in (cached, model))
    (run,) = cached.report()["runs"]
    assert run["trials"] == 0 and run["computed"] == COMPUTED
    assert run["warnings"] == ["some frames are kept clean: reuse is planned without trials"]
    assert torch.equal(found[:, :, 0], start()[:, :, 0])
    assert 0 < distance(found, expected) < 0.01
    assert any(run["corrections"])


def test_a_frame_that_gets_noise_later_is_computed_then(model):
    scheduler, mask = scheduler_of(), torch.tensor([[0.5, 1, 1, 1, 1]])
    cached = CachedSTDiT3(model, scheduler, "flash")
    found, expected = (sample(m, scheduler, start(), mask=mask) for m in (cached, model))
    (run,) = cached.report()["runs"]
    change = next(i for i, level in enumerate(run["sigmas"]) if level <= 0.5)
    assert run["decisions"][change] == "C" and run["plan"]["unplanned"] == 1
    assert distance(found, expected) < 0.1


def test_residuals_of_blocks_do_not_outlive_a_change_of_the_mask(model):
    scheduler, mask = scheduler_of(), torch.tensor([[0.5, 1, 1, 1, 1]])
    cached = CachedSTDiT3(model, scheduler, "off", blockcache=BlockCacheConfig(reuse_steps=100))
    counts = []

    def watched(*args, **kwargs):
        out = cached(*args, **kwargs)
        counts.append(sum(block.calls for block in [*model.spatial_blocks, *model.temporal_blocks]))
        return out

    sample(watched, scheduler, start(), mask=mask)
    per_call = [b - a for a, b in zip([0, *counts], counts)]
    change = next(i for i, level in enumerate(flow_sigmas(STEPS, SHIFT)) if level <= 0.5)
    assert set(per_call[3:change]) == {4} and set(per_call[change:]) == {6}


def test_another_guidance_scale_than_the_schedulers(model):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, cfg_scale=5.0)
    found = sample(cached, scheduler, start(), guidance_scale=5.0)
    (run,) = cached.report()["runs"]
    assert run["computed"] == COMPUTED and run["warnings"] == []
    assert distance(found, sample(model, scheduler, start(), guidance_scale=5.0)) < 0.02


def test_a_guidance_scale_that_was_not_given_is_noticed(model):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler, "flash")
    found = sample(cached, scheduler, start(), guidance_scale=5.0)
    assert torch.equal(found, sample(model, scheduler, start(), guidance_scale=5.0))
    (run,) = cached.report()["runs"]
    assert run["standing_aside"] == ["lfcache", "blockcache"]
    assert "the sampler's guidance scale is 5, but cfg_scale is 3" in run["warnings"][0]


def test_equal_branches_are_no_reason_to_stand_aside(model):
    scheduler = scheduler_of()
    with torch.no_grad():
        model.y_embedder.weight.zero_()
    cached = CachedSTDiT3(model, scheduler)
    sample(cached, scheduler, start(), guidance_scale=5.0)
    assert cached.report()["runs"][0]["computed"] == COMPUTED


def test_noise_levels_that_are_not_the_schedulers(model):
    scheduler, levels = scheduler_of(), flow_sigmas(STEPS, 1.1 * SHIFT)
    cached = CachedSTDiT3(model, scheduler, "flash")
    found = sample(cached, scheduler, start(), levels=levels)
    assert torch.equal(found, sample(model, scheduler, start(), levels=levels))
    (run,) = cached.report()["runs"]
    assert run["standing_aside"] == ["lfcache", "blockcache"] and run["calls"] == STEPS
    assert "step 2 has timestep" in run["warnings"][0]


def test_videos_at_different_timesteps(model):
    scheduler = scheduler_of()
    cached = CachedSTDiT3(model, scheduler)
    x = start((4, *SHAPE[1:]))
    cached(x, torch.tensor([1000.0, 900.0] * 2), **arguments(2))
    (run,) = cached.report()["runs"]
    assert run["standing_aside"] == ["lfcache"] and run["decisions"] == "C"


def test_a_model_that_fails_on_small_latents(model):
    scheduler, original = scheduler_of(), model.forward

    def forward(x, *args, **kwargs):
        if x.shape[-1] < 16:
            raise RuntimeError("too small")
        return original(x, *args, **kwargs)

    model.forward = forward
    cached = CachedSTDiT3(model, scheduler)
    sample(cached, scheduler, start())
    (run,) = cached.report()["runs"]
    assert run["computed"] == COMPUTED and run["trials"] == 0
    assert "the trial failed with RuntimeError: too small" in run["warnings"][0]


@pytest.mark.parametrize("prepare, reason", [({"steps": 7}, "7 steps are too few"), ({}, "sequence parallelism")])
def test_where_every_step_is_computed(model, prepare, reason):
    scheduler = scheduler_of(**prepare)
    model.enable_sequence_parallelism = not prepare
    cached = CachedSTDiT3(model, scheduler, "flash")
    assert torch.equal(sample(cached, scheduler, start()), sample(model, scheduler, start()))
    (run,) = cached.report()["runs"]
    assert run["standing_aside"] == ["lfcache", "blockcache"] and run["warnings"][0].startswith(reason)


def test_noise_levels_by_hand():
    scheduler = scheduler_of(4)

    def levels(height, width, frames):
        named = {"height": height, "width": width, "num_frames": frames}
        return noise_levels(scheduler, {name: torch.tensor([float(v)] * 2) for name, v in named.items()})

    # an image of twice 512 x 512 on each side has shift 2: 2 t / (1 + t)
    assert levels(1024, 1024, 1) == pytest.approx([1, 6 / 7, 2 / 3, 2 / 5, 0])
    # 51 frames are 15 of the latent; a fifteenth of the area makes the shift 1
    assert levels(512, 512 / 15, 51) == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-6)
    scheduler.use_timestep_transform = False
    assert levels(1024, 1024, 1) == [1, 0.75, 0.5, 0.25, 0]
    scheduler.num_sampling_steps, scheduler.use_discrete_timesteps = 3, True
    assert levels(1024, 1024, 1) == pytest.approx([1, 0.667, 0.333, 0])


def test_the_models_attributes_are_there(model):
    cached = CachedSTDiT3(model, scheduler_of())
    assert cached.y_embedder is model.y_embedder and cached.patch_size == (1, 2, 2)
    assert len(list(cached.parameters())) == len(list(model.parameters()))
    with pytest.raises(AttributeError):
        cached.no_such_thing  # noqa: B018
    assert copy.copy(cached).in_channels == 4


@pytest.mark.parametrize(
    "change, text",
    [
        ({"preset": "fast"}, "preset must be one of off, base, .*, got 'fast'. Use base"),
        ({"cfg_scale": "7"}, "cfg_scale must be a number or None, got '7'. Give what sample"),
        ({"alpha": -1.0, "preset": "custom"}, "alpha must be a number >= 0, got -1.0"),
        ({"scheduler": SimpleNamespace(cfg_scale=1)}, "scheduler must be Open-Sora's RFLOW, .* without num_sampling"),
        ({"model": nn.Linear(1, 1)}, "model must be Open-Sora 1.2's STDiT3, got Linear"),
    ],
)
def test_wrong_settings(model, change, text):
    with pytest.raises(ValueError, match=text):
        CachedSTDiT3(**{"model": model, "scheduler": scheduler_of(), **change})


def test_wrong_use(model):
    cached = CachedSTDiT3(model, scheduler_of())
    with pytest.raises(ValueError, match="model must be without caches"):
        CachedSTDiT3(cached, scheduler_of())
    with pytest.raises(ValueError, match=r"x must be \(2 B, C, T, H, W\).*Call the model itself"):
        cached(start(), torch.tensor([1000.0]), **arguments())
    assert cached.report()["runs"] == []
