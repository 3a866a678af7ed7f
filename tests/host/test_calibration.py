"""A second sampler that continues a first one takes over its calibration (as for Wan2.2's experts)."""

import pytest
import torch
from PreciseCache.nodes.lfcache import PreciseCacheLFCache

STEPS, SPLIT = 50, 25  # the whole run computes step 25, so that the split loses no cached prediction


def stage(bench, model, start, end, latent=None):
    """KSamplerAdvanced from step start to step end; only the first stage adds noise."""
    import nodes

    latent = torch.zeros_like(bench.noise()) if latent is None else latent
    (out,) = nodes.KSamplerAdvanced().sample(
        model,
        "enable" if start == 0 else "disable",
        3,
        STEPS,
        4.0,
        "euler",
        "simple",
        bench.positive,
        bench.negative,
        {"samples": latent},
        start,
        end,
        "disable" if end == STEPS else "enable",
    )
    return out["samples"]


def second(bench, first, model=None, **settings):
    """A MODEL with LFCache and calibrate_from."""
    return PreciseCacheLFCache.execute(
        model or bench.model, "custom", settings.pop("alpha", 0.5), 0.4, calibrate_from=first, **settings
    ).result[0]


@pytest.fixture(scope="module", autouse=True)
def _asked(bench):
    bench.ask("triangle", "orange", "right")  # other tests use other clips, whose runs compute other steps


@pytest.fixture(scope="module")
def whole(bench):
    """(report, latent) of the run that is not split."""
    model = bench.lfcache(alpha=0.5)
    result = stage(bench, model, 0, STEPS)
    return bench.report(model), result


def split(bench, first, later):
    """Both reports and the latent of a run in two stages."""
    latent = stage(bench, first, 0, SPLIT)
    result = stage(bench, later, SPLIT, STEPS, latent)
    return bench.report(first), bench.report(later), result


def test_a_run_split_in_two_decides_as_the_whole_one(bench, whole):
    first = bench.lfcache(alpha=0.5)
    begun, ended, result = split(bench, first, second(bench, first))
    report, expected = whole
    assert begun["decisions"] == report["decisions"][:SPLIT]
    assert ended["delta_max"] == begun["delta_max"] == report["delta_max"] and ended["warnings"] == []
    assert ended["decisions"] == report["decisions"][SPLIT:]
    # the second stage has no trend yet, so its first reuse repeats a prediction
    bare = stage(bench, bench.model, 0, STEPS)
    assert (result - bare).norm() < 2 * (expected - bare).norm()


def test_split_between_computed_calls_only_the_first_decision_differs_much(bench, whole):
    first = bench.lfcache(alpha=0.5)
    latent = stage(bench, first, 0, SPLIT - 3)
    later = second(bench, first)
    stage(bench, later, SPLIT - 3, STEPS, latent)
    ended, rest = bench.report(later)["decisions"], whole[0]["decisions"][SPLIT - 3 :]
    assert ended[0] == "C" and rest[0] == "R"  # nothing is cached when the second stage begins
    assert abs(ended.count("C") - rest.count("C")) <= 2


def test_without_calibrate_from_the_second_stage_warms_up_again_and_says_so(bench, whole):
    first = bench.lfcache(alpha=0.5)
    later = bench.lfcache(alpha=0.5)
    begun, ended, _ = split(bench, first, later)
    assert ended["decisions"].startswith("CCC") and ended["delta_max"] < begun["delta_max"]
    assert any("Connect calibrate_from" in warning for warning in ended["warnings"])
    assert not any("calibrate_from" in warning for warning in begun["warnings"])


def test_one_model_sampled_in_two_stages_needs_no_input(bench, whole):
    model = bench.lfcache(alpha=0.5)
    stage(bench, model, SPLIT, STEPS, stage(bench, model, 0, SPLIT))
    ended = bench.report(model)
    assert ended["delta_max"] == whole[0]["delta_max"] and ended["warnings"] == []
    assert ended["decisions"] == whole[0]["decisions"][SPLIT:]


@pytest.mark.parametrize(
    "settings, says",
    [
        (dict(factor_hw=2), "calibrate_from has different settings"),
        (dict(factor_t=1, factor_hw=1), "calibrate_from has different settings"),
    ],
)
def test_a_calibration_that_does_not_fit_is_not_taken_over(bench, settings, says):
    first = bench.lfcache(alpha=0.5)
    begun, ended, _ = split(bench, first, second(bench, first, **settings))
    assert any(says in warning for warning in ended["warnings"])
    assert ended["delta_max"] != begun["delta_max"] and ended["decisions"].startswith("CCC")


def test_without_trials_the_scale_of_extrapolated_changes_is_taken_over(bench):
    first = bench.lfcache(alpha=0.5, factor_t=1, factor_hw=1)
    begun, ended, _ = split(bench, first, second(bench, first, factor_t=1, factor_hw=1))
    assert begun["trials"] == ended["trials"] == 0
    assert ended["delta_max"] == begun["delta_max"] and ended["decisions"].startswith("CC") and ended["reused"] > 0


def test_an_earlier_model_that_was_not_sampled_is_no_calibration(bench):
    later = second(bench, bench.lfcache(alpha=0.5))
    stage(bench, later, 0, STEPS)
    report = bench.report(later)
    assert report["decisions"].startswith("CCC") and report["reused"] > 0
    assert any("was not sampled before" in warning for warning in report["warnings"])


def test_blockcache_after_lfcache_keeps_the_calibration(bench):
    first = bench.lfcache(alpha=0.5)
    later = bench.blockcache(second(bench, first))
    _, ended, _ = split(bench, first, later)
    assert ended["warnings"] == [] and ended["blockcache"] is not None


def test_if_the_first_node_is_bypassed_only_the_calibration_is_missing(bench):
    later = second(bench, bench.model)
    stage(bench, later, SPLIT, STEPS, stage(bench, bench.model, 0, SPLIT))
    ended = bench.report(later)
    assert ended["decisions"].startswith("CCC")
    assert any("Connect calibrate_from" in text for text in ended["warnings"])


def test_img2img_is_not_advised_to_connect_calibrate_from(bench):
    model = bench.lfcache(alpha=0.5)
    bench.sample(model, steps=20, denoise=0.6, latent=torch.ones_like(bench.noise()))
    assert not any("calibrate_from" in warning for warning in bench.report(model)["warnings"])


def test_with_a_share_each_stage_plans_its_own_steps_and_takes_nothing_over(bench):
    first = bench.lfcache(share=0.4)
    later = PreciseCacheLFCache.execute(bench.model, "budget", 0.5, 0.4, calibrate_from=first).result[0]
    for report in split(bench, first, later)[:2]:
        assert report["plan"]["budget"] == report["computed"] == 10 and report["plan"]["is_rehearsed"]
        assert report["trials"] == SPLIT and report["delta_max"] is None and report["warnings"] == []


def test_a_planned_run_measures_no_scale_for_a_later_one(bench):
    first = bench.lfcache(share=0.4)
    _, ended, _ = split(bench, first, second(bench, first))
    assert ended["decisions"].startswith("CCC") and any("measured nothing" in text for text in ended["warnings"])


def test_each_part_of_a_schedule_gets_its_part_of_a_presets_steps(bench):
    model = PreciseCacheLFCache.execute(bench.model, "turbo", 0.5, 0.4).result[0]
    stage(bench, model, SPLIT, STEPS, stage(bench, model, 0, SPLIT))
    first, later = bench.reports.runs_of(bench.attachment.attachment_of(model).id)[-2:]
    stage(bench, model, 0, STEPS)
    assert first["plan"]["budget"] == later["plan"]["budget"] == 5 and bench.report(model)["plan"]["budget"] == 10
