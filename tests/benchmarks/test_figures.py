"""The commands that measure the paper's figures and tables, on tiny input."""

import sys
from dataclasses import asdict, replace

import pytest
import torch

from benchmarks.figures import (
    band_difference,
    block_impact,
    block_importance,
    step_impact,
    trial_agreement,
    trial_resolution,
)
from benchmarks.meter import Meter
from benchmarks.peers.uniform import attach_uniform
from benchmarks.study import Records, Study, write_plot
from benchmarks.tables import alpha_bound, downsample_factors, reuse_strategies
from precisecache_core.blockcache.pivotal import skipped_blocks

SHAPE = (1, 16, 2, 8, 8)


@pytest.fixture(scope="module")
def study(bench):
    return Study(bench, steps=10, shape=SHAPE)


@pytest.fixture(scope="module")
def recorded(study):
    return study.record(0)


@pytest.fixture(scope="module")
def full(study):
    """(final latent, Meter) of the uncached run."""
    return study.run(study.base, 0)


def test_a_seed_always_asks_for_the_same_clip(bench):
    def words(seed):
        bench.ask_for(seed)
        return bench.positive[0][0].clone()

    assert torch.equal(words(5), words(5)) and not torch.equal(words(5), words(6))
    bench.ask("triangle", "yellow", "left")  # the clip that the records have for seed 5
    assert torch.equal(words(5), bench.positive[0][0])


def test_a_recording_changes_nothing(study, recorded, full):
    recording, latent = recorded
    assert torch.equal(latent, full[0])
    assert len(recording.predictions) == 10 and recording.sigmas == sorted(recording.sigmas, reverse=True)


def test_reusing_one_call_equals_a_run_that_computes_all_others(study, recorded):
    pattern = [call != 4 for call in range(10)]
    for reuse in ("prediction", "taylor"):
        model = attach_uniform(study.base, pattern, reuse)
        prediction = step_impact.stand_in(recorded[0], 4, reuse, 0.2)
        latent = study.sample(step_impact.attach_one_reused(study.base, recorded[0], 4, prediction), 0)
        assert torch.allclose(latent, study.sample(model, 0), atol=1e-5)


def test_reuse_does_no_harm_where_nothing_changed(study, recorded):
    recording, reference = recorded
    own, before = (
        study.sample(step_impact.attach_one_reused(study.base, recording, 4, recording.predictions[call]), 0)
        for call in (4, 3)
    )
    # the conversion from denoised to prediction and back is rounded, and five more steps follow
    assert (own - reference).norm() < 1e-4 * reference.norm()
    assert (before - reference).norm() > 1e-3 * reference.norm()
    found = list(step_impact.damage(study, 0, ["prediction"], every=4))
    assert [r["call"] for r in found] == [1, 5, 9]
    assert all(r["mse"] > 0 for r in found)
    assert step_impact.decibels(0.0) == float("inf") and step_impact.decibels(0.01) == pytest.approx(20)


def test_the_changes_of_both_bands_add_up_to_that_of_the_prediction(recorded):
    recording, _ = recorded
    low, high, whole = (
        step_impact.stand_in(recording, 3, kind, 0.2) - recording.predictions[3]
        for kind in ("low", "high", "prediction")
    )
    assert torch.allclose(low + high, whole, atol=1e-6)
    assert low.norm() > 0 and high.norm() > 0


def test_the_low_band_keeps_a_mean_and_drops_a_checkerboard():
    assert torch.allclose(step_impact.low_band(torch.ones(1, 1, 1, 8, 8), 0.2), torch.ones(1), atol=1e-6)
    checkers = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)).expand(1, 1, 1, 8, 8)
    assert step_impact.low_band(checkers, 0.2).abs().max() < 1e-6


def test_band_energies_add_up(study):
    record = band_difference.differences(study, 0)
    for full_norm, low, high in zip(record["full"], record["low"], record["high"]):
        assert low**2 + high**2 == pytest.approx(full_norm**2, rel=1e-4)
        assert 0 < low < full_norm


def test_correlation_is_taken_at_the_calls_that_were_measured():
    values = [9.0, 1.0, 8.0, 1.0, 7.0, 1.0, 6.0]  # the change from call 0 to 1, from 1 to 2, …
    impact = {1: 4.0, 3: 3.0, 5: 2.0, 7: 1.0}
    assert band_difference.correlation(values, impact) == pytest.approx(1)
    assert band_difference.correlation(values, {c: -v for c, v in impact.items()}) == pytest.approx(-1)


@pytest.mark.parametrize("name", [(2, 4, "snr_matched", "trial"), (1, 2, "plain", "cached")])
def test_trials_made_side_by_side_equal_those_of_separate_runs(study, name):
    configs = trial_resolution.configs(study.bench)
    side_by_side = dict(zip(configs, trial_resolution.lfds(study, 0, configs.values())))
    model = study.bench.lfcache(study.base, **asdict(configs[name]))
    study.sample(model, 0)
    run = study.bench.report(model)
    assert side_by_side[name]["lfd"] == pytest.approx(run["lfd"][1:], rel=1e-5)
    assert trial_resolution.agreement(side_by_side[name]) == pytest.approx(run["trial_agreement"])


def test_misjudgement_is_the_mean_factor_between_the_relative_lfds():
    record = {"lfd": [8.0, 4.0, 4.0, 0.5], "true": [1.0, 0.5, 0.25, 0.125], "config": {"warmup": 3}}
    assert trial_resolution.misjudgement(record) == pytest.approx((1 * 1 * 2 * 2) ** 0.25)
    assert trial_resolution.misjudgement(record | {"lfd": record["true"]}) == pytest.approx(1)


def test_block_norms_rank_the_blocks_as_blockcache_does(study):
    record = block_importance.norms(study, 0)
    size, drift = torch.tensor(record["norms"]), torch.tensor(record["drift"])
    model = study.bench.blockcache(study.base)
    study.sample(model, 0)
    entry = study.bench.report(model)["blockcache"]
    assert size.shape == (entry["blocks"], 10) and drift.shape == (entry["blocks"], 9)
    # the second call ranks the blocks that the third one keeps
    skipped = skipped_blocks(size[:, 1].tolist(), study.bench.block_config().cache_rate)
    assert set(entry["pivotal"][0]) == set(range(entry["blocks"])) - skipped
    assert not any(block._forward_hooks for block in study.base.model.diffusion_model.blocks)


def test_norms_and_drift_are_of_what_blocks_add():
    class Block(torch.nn.Module):
        def forward(self, x):
            return 4 * x

    watch = block_importance.BlockWatch([Block()])
    with watch:
        for value in (1.0, 2.0):
            watch.calls.append({})
            watch.blocks[0](torch.full((1, 4), value))
    size, change = watch.squares()
    assert size.tolist() == [[4 * 3.0**2, 4 * 6.0**2]] and change.tolist() == [[0, 4 * 3.0**2]]


def test_a_skipped_block_adds_what_it_added_before():
    blocks = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    with torch.no_grad():
        for block in blocks:
            block.weight.fill_(4.0)

    def run(value):
        x = torch.full((1, 1), value)
        for block in blocks:
            x = block(x)
        return x.item()

    with block_impact.BlockSwap(blocks) as swap:
        swap.begin(1)
        assert run(1.0) == 16.0  # the blocks add 3 and 12
        swap.begin(1)
        assert run(2.0) == 32.0
        assert swap.norms() == pytest.approx([6.0, 24.0])
        swap.skip([1], 1)
        assert run(2.0) == 20.0
        swap.skip([0, 1], 1)
        assert run(2.0) == 17.0
        swap.skip(None, 1)
        assert run(2.0) == 32.0
    assert not any(block._forward_hooks for block in blocks)


def test_the_impact_of_blocks_is_measured_against_the_whole_derivative(study, recorded):
    records = block_impact.impact(study, 0, (1, 2), 4, lambda call, gap: (call, gap) == (8, 2))
    assert [(r["call"], r["gap"]) for r in records] == [(4, 1), (4, 2), (8, 1)]
    recording = recorded[0]
    derivatives = [(x - d) / s for x, d, s in zip(recording.x, recording.denoised, recording.sigmas)]
    for record in records:
        call, gap = record["call"], record["gap"]
        now, before, earlier = (derivatives[call - i * gap] for i in range(3))
        assert record["whole"] == pytest.approx((before - now).square().sum().item(), rel=1e-3)
        assert record["trend"] == pytest.approx((2 * before - earlier - now).square().sum().item(), rel=1e-3)
        assert len(record["alone"]) == 16 and all(error > 0 for error in record["alone"])
        assert record["best"][0] == pytest.approx(min(record["alone"]))  # a tenth of 16 blocks is one
        assert 0 < record["small"][0] < record["small"][1] < record["small"][2]


def test_the_smallest_blocks_are_skipped():
    norms = torch.tensor([[[5.0, 1.0], [4.0, 2.0], [3.0, 3.0], [2.0, 4.0], [1.0, 5.0]]])
    assert block_importance.skipped_cells(norms, 0.4).tolist() == [[0, 1], [0, 1], [0, 0], [1, 0], [1, 0]]
    assert block_importance.over_largest(norms)[0, :, 0].tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


def test_the_trial_cost_is_that_of_the_small_latents(study, full):
    config = study.bench.config(alpha=0.7, factor_t=2, factor_hw=4)
    record = downsample_factors.outcome(study, 0, config, *full)
    assert "R" in record["decisions"] and 4 < record["trials"] <= 10
    meter = Meter()
    study.bench.sample(meter.attach(study.base), noise=study.bench.noise((1, 16, 1, 2, 2)), steps=record["trials"])
    assert record["trial_cost"] * full[1].flops == pytest.approx(meter.flops)
    assert record["cost"] == pytest.approx(record["trial_cost"] + record["computed"] / record["calls"])
    assert record["latent_error"] > 0 and record["video_error"] > 0 and 20 < record["psnr"] < 100


def test_alpha_0_changes_nothing(study, full):
    record = downsample_factors.outcome(study, 0, study.bench.config(alpha=0.0), *full)
    assert record["psnr"] == float("inf") and record["ssim"] == pytest.approx(1)
    assert record["latent_error"] == record["video_error"] == 0
    assert record["computed"] == record["calls"] == 10


def test_replaying_a_runs_decisions_gives_its_latent(study, full):
    config = study.bench.config(alpha=0.7)
    model = study.bench.lfcache(study.base, **asdict(config))
    latent = study.sample(model, 0)
    decisions = study.bench.report(model)["decisions"]
    assert "R" in decisions
    assert torch.allclose(reuse_strategies.replayed(study, 0, config, decisions), latent, atol=1e-5)
    other = replace(config, reuse="residual" if config.reuse != "residual" else "prediction")
    assert not torch.allclose(reuse_strategies.replayed(study, 0, other, decisions), latent, atol=1e-3)


def test_the_constant_is_the_smallest_that_holds_for_every_record(bench):
    def records(computed, psnr, *errors):
        return [{"computed": computed, "psnr": psnr, "threshold": t, "video_error": e} for t, e in errors]

    found = {
        bench.config(alpha=0.2): records(20, 40.0, (1.0, 2.0), (2.0, 3.0)),
        bench.config(alpha=0.4): records(19, 39.0, (2.0, 4.5), (4.0, 5.0)),
        bench.config(alpha=0.8): records(15, 35.0, (4.0, 7.0), (8.0, 9.0)),
    }
    assert alpha_bound.constant(found, "video_error") == 2.25
    shown = alpha_bound.shown_of(found)
    assert [config.alpha for config in shown] == [0.2, 0.8]  # 0.4 computes only one call fewer
    assert alpha_bound.constant(shown, "video_error") == 2
    assert alpha_bound.is_falling(shown)
    assert not alpha_bound.is_falling(dict(reversed(shown.items())))


def test_records_are_found_again_under_the_same_settings(study, tmp_path):
    path = tmp_path / "some.jsonl"
    Records(path, study).add({"seed": 3, "psnr": float("inf")})
    again = Records(path, study)
    assert again.find(seed=3)["psnr"] == float("inf")
    assert again.find(seed=4) is None
    assert Records(path, Study(study.bench, steps=11, shape=SHAPE)).find(seed=3) is None
    assert Records(path, study, is_fresh=True).find(seed=3) is None and not path.exists()


def test_without_matplotlib_a_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_plot(tmp_path / "plot.png", lambda panels: None)
    assert "precisecache[bench]" in capsys.readouterr().out and not (tmp_path / "plot.png").exists()


@pytest.mark.parametrize(
    "command, arguments",
    [
        (step_impact, ["--every", "4", "--kinds", "prediction", "low"]),
        (band_difference, []),
        (trial_resolution, []),
        (block_importance, []),
        (downsample_factors, []),
        (reuse_strategies, []),
        (alpha_bound, ["--alphas", "0.1", "2"]),
    ],
)
def test_a_command_writes_its_table_and_its_plot_and_measures_once(study, tmp_path, monkeypatch, command, arguments):
    from PIL import Image

    monkeypatch.setattr(Study, "of", lambda args: study)
    monkeypatch.setattr(downsample_factors, "FACTORS", ((1, 2), (2, 4)))
    monkeypatch.setattr(reuse_strategies, "ALPHAS", (0.7,))
    monkeypatch.setattr(sys, "argv", ["", "--clips", "1", "--steps", "10", "--out", str(tmp_path), *arguments])
    name = command.__name__.rpartition(".")[2]
    command.main()
    table = (tmp_path / f"{name}.txt").read_text()
    assert table.startswith(f"command: python3 run.py bench {name} --clips 1") and "nan" not in table
    assert Image.open(tmp_path / f"{name}.png").width == 1024
    monkeypatch.setattr(study, "sample", None)  # what is recorded is not sampled again
    command.main()
    assert (tmp_path / f"{name}.txt").read_text() == table
    if command is trial_resolution:
        trial_agreement.main()
        assert (tmp_path / "trial_agreement_4x32.txt").read_text().splitlines()[4:] == table.splitlines()[5:10]
