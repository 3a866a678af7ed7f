"""The models that benchmarks measure on: their prompts, their loading, and where their results go."""

import json
import sys

import pytest
import torch

from benchmarks.figures import (
    band_difference,
    block_importance,
    step_impact,
    trial_agreement,
    trial_resolution,
)
from benchmarks.methods import Schedule, all_rows, calibration
from benchmarks.options import RESULTS, ModelParser, results_of
from benchmarks.peers import calibrate
from benchmarks.study import Records, Study
from benchmarks.tables import (
    alpha_bound,
    downsample_factors,
    frontier,
    memory,
    overhead,
    reuse_strategies,
    wall_clock,
)
from precisecache_core.tiny import bundle
from precisecache_core.tiny.model import TinyVideoConfig, TinyVideoModel
from precisecache_core.tiny.prompts import encode_words
from testkit.models import MODELS, TrainedModel, trained_model
from testkit.tiny_host import TinyHost

SHAPE = (1, 16, 2, 8, 8)
DEEP = MODELS["deep"]


@pytest.fixture(scope="module")
def training():
    pytest.importorskip("tools.training", reason="the registry's package leaves the training out")
    from tools.training import kinds, train

    return {"kinds": kinds.KINDS, "train": train}


@pytest.fixture(scope="module")
def folder(training, tmp_path_factory):
    """A model with random weights and the prompts of `deep`, as the training exports it."""
    folder = tmp_path_factory.mktemp("models") / "random"
    config = TinyVideoConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=3)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        weights = TinyVideoModel(config).state_dict()
        codec = bundle.load_codec()
        codec.scale *= 2
    training["train"].export(weights, codec, config, folder)
    return folder


@pytest.fixture
def random_model(folder, monkeypatch):
    """Its name among the models."""
    model = TrainedModel("random", folder, DEEP.words, DEEP.first, DEEP.choose, shift=3.0)
    monkeypatch.setitem(MODELS, "random", model)
    return "random"


# --- prompts ---


@pytest.mark.parametrize("name", ["shapes", "deep"])
def test_words_and_tokens_are_those_of_the_training(training, name):
    kind, words = training["kinds"][name], MODELS[name].words
    assert kind.words == tuple(words.values())
    codec = bundle.load_codec()
    generator = torch.Generator().manual_seed(7)
    _, trained_on = training["train"].draw_batch(kind, codec, 1, 8, 64, generator)
    clips = kind.render(64, 1, 32, 32, torch.Generator().manual_seed(7))  # the same clips
    expected = torch.cat([encode_words(MODELS[name].prompt(*numbers), words) for numbers in clips.words.tolist()])
    unconditional = encode_words([""] * len(words), words)
    is_dropped = (trained_on == unconditional).all(-1).all(-1)
    assert 0 < is_dropped.sum() < 32
    assert torch.equal(trained_on[~is_dropped], expected[~is_dropped])


def test_seeds_give_prompts_of_all_words():
    prompts = [DEEP.prompt_of(seed) for seed in range(32)]
    assert len(set(prompts)) == 32
    assert [set(words) for words in zip(*prompts)] == [set(words) for words in DEEP.words.values()]
    assert all(left != right for _, left, _, right, _ in prompts)
    assert prompts[7] == ("square", "green", "circle", "orange", "right")


def test_clips_of_the_calibration_have_the_words_of_the_kept_ones():
    assert calibrate.words_of(MODELS["shapes"], 5) == ("triangle", "purple", "left")
    assert calibrate.words_of(DEEP, 5) == ("triangle", "purple", "circle", "red", "still")


# --- loading ---


def test_a_model_from_a_folder_is_sampled_with_its_own_prompts_shift_and_codec(random_model, folder):
    bench = TinyHost(random_model)
    assert len(bench.model.model.diffusion_model.blocks) == 3 and bench.trained.name == "random"
    assert bench.model.get_model_object("model_sampling").shift == 3
    assert bench.positive[0][0].shape == bench.negative[0][0].shape == (1, 5, 64)
    assert not torch.equal(bench.positive[0][0], bench.negative[0][0])
    x, t = torch.randn(2, 16, 2, 8, 8), torch.tensor([500.0, 30.0])
    context = torch.cat((bench.positive[0][0], bench.negative[0][0]))
    own, theirs = bundle.load_model(folder)(x, t, context), bench.model.model.diffusion_model(x, t, context)
    assert (own - theirs).abs().max() <= 2e-5 * theirs.abs().max()
    latent = bench.sample(bench.model, steps=2)
    own_codec = bundle.load_codec(folder)
    decoded = own_codec.decode(bench.vae.first_stage_model.format.process_in(latent)).movedim(1, -1)
    assert torch.allclose(bench.vae.decode(latent), decoded, atol=1e-5)
    assert not torch.equal(own_codec.scale, bundle.load_codec().scale)


def test_missing_files_end_the_program_and_say_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "none", TrainedModel("none", tmp_path, DEEP.words, DEEP.first, DEEP.choose))
    (tmp_path / bundle.CODEC_NAME).touch()
    for load in (trained_model, TinyHost):
        with pytest.raises(SystemExit, match=f"model none lacks {bundle.MODEL_NAME} in .*--kind none"):
            load("none")
    assert trained_model("shapes") is MODELS["shapes"]


def test_every_method_of_the_frontier_takes_the_model(random_model, monkeypatch):
    known = {"teacache": {"modulated": [1.0, 0.0], "embedding": [1.0, 0.0]}, "magcache": [[1.0] * 50] * 2}
    asked = []
    monkeypatch.setattr("benchmarks.methods.calibration", lambda *names: asked.append(names) or known)
    schedule = Schedule(steps=6, shape=SHAPE)
    rows = list({row.family: row for row in all_rows() if not row.is_searched}.values())  # as the command chooses
    records = list(frontier.measure(TinyHost(random_model), schedule, 3, rows))
    assert [r["name"] for r in records] == [row.name for row in rows] and all(r["cost"] > 0 for r in records)
    assert set(asked) == {("random", schedule.shift, SHAPE)}


# --- results ---


def test_results_and_shift_are_the_models(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "deep", TrainedModel("deep", tmp_path, {}, (), DEEP.choose, shift=3.0))
    parser = ModelParser("")
    parser.add_argument("--shift", type=float)
    plain, deep, given = (
        parser.parse_args(line)
        for line in ([], ["--model", "deep"], ["--model", "deep", "--shift", "0", "--out", str(tmp_path)])
    )
    assert (plain.model, plain.out, plain.shift) == ("shapes", RESULTS, bundle.SHIFT)
    assert (deep.out, deep.shift) == (RESULTS / "deep", 3) and (given.out, given.shift) == (tmp_path / "deep", 0)
    assert calibrate.calibration_path(50, SHAPE, folder=results_of("deep")).parent == RESULTS / "deep"


@pytest.mark.parametrize(
    "command",
    [
        *(alpha_bound, downsample_factors, frontier, memory, overhead, reuse_strategies, wall_clock, calibrate),
        *(band_difference, block_importance, step_impact, trial_agreement, trial_resolution),
    ],
    ids=lambda command: command.__name__,
)
def test_every_command_takes_a_model_and_ends_if_its_files_are_missing(monkeypatch, tmp_path, command):
    monkeypatch.setitem(MODELS, "deep", TrainedModel("deep", tmp_path, DEEP.words, DEEP.first, DEEP.choose))
    monkeypatch.setattr(sys, "argv", ["", "--model", "deep", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="model deep lacks"):
        command.main()


def test_the_frontiers_of_two_models_are_kept_apart(monkeypatch, tmp_path, capsys):
    record = {"seed": 0, "cost": 0.5, "trial_cost": 0.0, "computed": 5.0, "psnr": 40.0, "ssim": 0.9, "lpips": None}
    record |= {"name": "uniform fitted 0.50"}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "frontier_euler50_shift2_4x32.0.jsonl").write_text(json.dumps(record) + "\n")
    line = ["", "--table", "--shift", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*line, "--model", "deep"])
    frontier.main()
    table = (tmp_path / "deep" / "frontier_euler50_shift2_4x32.txt").read_text()
    assert table.splitlines()[2].startswith("model deep, euler simple 50 steps, shift 2") and "uniform" in table
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit, match="no records"):
        frontier.main()


def test_a_study_finds_only_its_models_records(bench, random_model, tmp_path):
    shapes, other = (Study(b, steps=10, shape=SHAPE) for b in (bench, TinyHost(random_model)))
    path = tmp_path / "some.jsonl"
    old = {name: value for name, value in shapes.settings().items() if name != "model"}
    path.write_text(json.dumps({**old, "seed": 0}) + "\n")  # as before there was a second model
    Records(path, other).add({"seed": 1})
    assert [r["seed"] for r in Records(path, shapes).under_settings()] == [0]
    assert [r["seed"] for r in Records(path, other).under_settings()] == [1]
    assert Records(path, shapes).find(seed=0) and not Records(path, shapes).find(seed=1)
    assert shapes.lines("some", 2)[2].startswith("model shapes, ")
    assert other.lines("some", 2)[2].startswith("model random, ")


def test_a_missing_calibration_ends_the_program_and_names_its_command():
    with pytest.raises(SystemExit, match="bench calibrate --model deep --steps 50 --shift 7 --shape 1 16 2 8 8"):
        calibration("deep", 7.0, SHAPE)
