"""BlockCache on toy blocks whose residuals are known by hand."""

import pytest
import torch

from precisecache_core.blockcache.config import BlockCacheConfig
from precisecache_core.blockcache.pivotal import ranges_of, skipped_blocks
from precisecache_core.blockcache.run import BlockCacheRun
from precisecache_core.blockcache.swap import swapped_forwards

BRANCHES = [("cond", slice(0, 1)), ("uncond", slice(1, 2))]


class Toy:
    """Blocks that add a constant to each of `streams`, and count their calls."""

    def __init__(self, gains, streams=("img",), in_place=False):
        self.gains = list(gains)
        self.streams = streams
        self.in_place = in_place
        self.calls = 0

    def block(self, i, inputs):
        self.calls += 1
        if self.in_place:
            for name in self.streams:
                inputs[name] += self.gains[i]
            return {name: inputs[name] for name in self.streams}
        return {name: inputs[name] + self.gains[i] for name in self.streams}

    def forward(self, run, x, branches=BRANCHES, between=0.0, kinds=None):
        """One pass; `between` is added to img in place after each block, as a ControlNet would add it."""
        current = run.open_pass(branches)
        state = {"img": x.clone(), "txt": x[:, :2].clone()}
        for i in range(len(self.gains)):
            given = dict(state)
            key = (kinds[i] if kinds else "double_block", i)
            state |= current.run_block(key, given, lambda: self.block(i, given))
            state["img"] += between
        current.close()
        return state["img"]


def call(toy, run, x, **kwargs):
    run.begin_call()
    return toy.forward(run, x, **kwargs)


X = torch.zeros(2, 4, 3)
GAINS = (5.0, 0.1, 0.2, 4.0, 0.3, 6.0)  # cache_rate 0.5 skips 1, 2 and 4


@pytest.mark.parametrize(
    "scores, rate, expected",
    [
        ((5, 1, 2, 4, 3), 0.4, {1, 2}),
        ((5, 1, 2, 4, 3), 0.39, {1}),
        ((5, 1, 2, 4, 3), 0.0, set()),
        ((5, 1, 2, 4, 3), 0.99, {1, 2, 3, 4}),
        ((1, 1, 1, 1), 0.5, {3, 2}),
        ((float("nan"), 1, float("inf"), 4), 0.75, {1, 3}),
    ],
)
def test_the_smallest_scores_are_skipped(scores, rate, expected):
    assert skipped_blocks(scores, rate) == expected


def test_ten_blocks_at_forty_percent_skip_four():
    assert len(skipped_blocks(range(10), 0.4)) == 4 and len(skipped_blocks(range(40), 0.4)) == 16


def test_neighbours_form_ranges_that_end_where_the_kind_changes():
    kinds = ["double"] * 3 + ["single"] * 4
    assert ranges_of({0, 1, 2, 3, 5}, kinds) == [(0, 2), (3, 3), (5, 5)]
    assert ranges_of(set(), kinds) == []


@pytest.mark.parametrize("storage", ("merged", "per_block"))
def test_the_schedule_of_calls(storage):
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5, reuse_steps=2, storage=storage))
    counts = []
    for _ in range(9):
        toy.calls = 0
        out = call(toy, run, X)
        assert torch.allclose(out, X + sum(GAINS))
        counts.append(toy.calls)
    # three calls of warm-up, of which the last is the first refresh; then two skip and one refreshes, and again
    assert counts == [6, 6, 6, 3, 3, 6, 3, 3, 6]
    assert run.tally.block_calls == 54 and run.tally.block_calls_skipped == 12
    assert run.tally.pivotal_sets[0] == [0, 3, 5] and len(run.order.keys) == 6
    # merged keeps one tensor for blocks 1 and 2 and one for 4; per_block keeps all six until they are ranked
    assert run.journal.peak_bytes["blockcache"] == (2 if storage == "merged" else 6) * X.nbytes


@pytest.mark.parametrize("storage", ("merged", "per_block"))
@pytest.mark.parametrize("in_place", (False, True))
def test_skipped_blocks_add_their_residual_and_not_the_terms_between_blocks(storage, in_place):
    toy = Toy(GAINS, ("img", "txt"), in_place)
    run = BlockCacheRun(BlockCacheConfig(0.5, storage=storage))
    for between in (0.0, 0.0, 0.5, 0.25):
        out = call(toy, run, X, between=between)
        assert torch.allclose(out, X + sum(GAINS) + 6 * between, atol=1e-5)


def test_merged_keeps_one_tensor_per_range_and_per_block_one_per_block():
    held = {}
    for storage in ("merged", "per_block"):
        toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5, storage=storage))
        for _ in range(4):
            call(toy, run, X)
        held[storage] = run.cache_bytes, run.journal.peak_bytes["blockcache"]
    one = X.nbytes
    assert held["merged"] == (2 * one, 2 * one)  # one for blocks 1 and 2, one for 4
    assert held["per_block"] == (3 * one, 6 * one)


@pytest.mark.parametrize("dtype, multiple", [(torch.float32, 4), (torch.bfloat16, 4)])
def test_merged_equals_per_block_up_to_rounding(dtype, multiple):
    """Four neighbours are skipped: merged adds one residual of four blocks, per_block rounds four times."""
    noise = torch.randn(6, 2, 64, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(1)).to(dtype)

    class Noisy(Toy):
        def block(self, i, inputs):
            return {"img": inputs["img"] + self.gains[i] * noise[i]}

    answers = []
    for storage in ("merged", "per_block"):
        toy, run = Noisy((3.0, 0.5, 0.4, 0.3, 0.2, 3.0)), BlockCacheRun(BlockCacheConfig(0.67, storage=storage))
        for _ in range(4):
            answer = call(toy, run, x)
        assert run.tally.pivotal_sets[0] == [0, 5] and run.tally.block_calls_skipped == 4
        answers.append(answer.float())
    merged, per_block = answers
    eps = torch.finfo(dtype).eps * per_block.abs().max()
    assert (merged - per_block).abs().max() <= multiple * eps


def test_split_and_batched_branches_skip_the_same_blocks():
    together, apart = (BlockCacheRun(BlockCacheConfig(0.5)) for _ in range(2))
    x = torch.randn(2, 4, 3)
    for step in range(6):
        toy = Toy([g * (1 + step) for g in GAINS])
        both = call(toy, together, x)
        apart.begin_call()
        rows = [toy.forward(apart, x[i : i + 1], [(name, slice(0, 1))]) for i, name in enumerate(("cond", "uncond"))]
        assert torch.allclose(both, torch.cat(rows), atol=1e-5)
    assert together.tally.pivotal_sets == apart.tally.pivotal_sets


def test_a_branch_the_refresh_did_not_see_is_computed_and_not_kept():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(3):
        call(toy, run, X[:1], branches=[("cond", slice(0, 1))])
    held = run.cache_bytes
    toy.calls = 0
    call(toy, run, X[:1], branches=[("window", slice(0, 1))])
    assert toy.calls == 6 and run.cache_bytes == held > 0


def test_two_passes_of_a_branch_in_one_call_keep_their_own_residuals():
    run = BlockCacheRun(BlockCacheConfig(0.5))
    plain, perturbed = Toy(GAINS), Toy([g + 0.01 for g in GAINS])
    for _ in range(5):
        run.begin_call()
        one = plain.forward(run, X)
        other = perturbed.forward(run, X)
    assert run.tally.block_calls_skipped == 12
    assert torch.allclose(one, X + sum(GAINS)) and torch.allclose(other, X + sum(perturbed.gains))


def test_a_pass_of_another_shape_is_computed():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(3):
        call(toy, run, X)
    toy.calls = 0
    assert torch.allclose(call(toy, run, torch.zeros(2, 5, 3)), torch.tensor(sum(GAINS)))
    assert toy.calls == 6


def test_rate_zero_computes_every_block_and_keeps_nothing():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.0))
    for _ in range(8):
        call(toy, run, X)
    assert toy.calls == 48 and run.journal.peak_bytes["blockcache"] == 0 and run.tally.pivotal_sets == []


def test_calls_before_the_start_are_computed_and_not_counted_as_warm_up():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5, reuse_steps=1), start_sigma=0.85)
    counts = []
    for step in range(8):
        toy.calls = 0
        run.begin_call(torch.tensor(1 - step / 10))
        toy.forward(run, X)
        counts.append(toy.calls)
    assert counts == [6, 6, 6, 6, 6, 3, 6, 3]


def test_a_residual_that_is_not_finite_belongs_to_a_pivotal_block():
    gains = list(GAINS)
    gains[1] = float("nan")
    run = BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(4):
        call(Toy(gains), run, X)
    assert 1 in run.tally.pivotal_sets[0]


@pytest.mark.parametrize("result", (None, {}, {"img": torch.zeros(2, 4, 7)}, {"other": X}, (X, X)))
def test_an_unknown_result_is_passed_on_and_every_block_is_computed(result):
    run = BlockCacheRun(BlockCacheConfig(0.5))
    run.begin_call()
    current = run.open_pass(BRANCHES)
    assert current.run_block(("double_block", 0), {"img": X}, lambda: result) is result
    assert current.run_block(("double_block", 1), {"img": X}, lambda: {"img": X})["img"] is X
    current.close()
    assert run.is_standing_aside and len(run.journal.warnings) == 1 and run.cache_bytes == 0


@pytest.mark.parametrize(
    "streams, branches",
    [
        ({"img": (X, X)}, BRANCHES),
        ({"img": X, "txt": None}, BRANCHES),
        ({}, BRANCHES),
        ({"img": X[0]}, [("cond", slice(0, 1)), ("uncond", slice(1, 2)), ("third", slice(2, 3))]),
        ({"img": X}, [("cond", slice(0, 0)), ("uncond", slice(0, 0))]),
    ],
)
def test_streams_that_are_no_batches_are_computed(streams, branches):
    run = BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(5):
        run.begin_call()
        current = run.open_pass(branches)
        for i in range(6):
            assert current.run_block(("double_block", i), streams, lambda: "answer") == "answer"
        current.close()
    assert run.tally.block_calls_skipped == 0 and len(run.journal.warnings) == 1


def test_a_block_that_runs_twice_in_a_pass_is_computed():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(5):
        run.begin_call()
        current = run.open_pass(BRANCHES)
        state = {"img": X}
        for i in (*range(6), *range(6)):
            given = dict(state)
            state = current.run_block(("double_block", i), given, lambda: toy.block(i, given))
        current.close()
        assert torch.allclose(state["img"], X + 2 * sum(GAINS))
    assert "twice" in run.journal.warnings[0]


def test_blocks_are_not_merged_across_what_the_model_computes_between_them():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5))
    answers = []
    for _ in range(5):
        run.begin_call()
        current = run.open_pass(BRANCHES)
        x = X + 1
        for i in range(6):
            given = {"img": x}
            x = current.run_block(("double_block", i), given, lambda: toy.block(i, given))["img"]
            x = x * 1.5 if i == 1 else x  # an adapter between two skipped blocks
        current.close()
        answers.append(x)
    assert run.tally.block_calls_skipped > 0 and set(run.plan.leaders) == {("double_block", i) for i in (1, 2, 4)}
    assert all(torch.allclose(answer, answers[0]) for answer in answers)
    # patches on double_block may compute something after any block
    run = BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(4):
        run.begin_call()
        current = run.open_pass(BRANCHES, is_joined=False)
        state = {"img": X}
        for i in range(6):
            given = state
            state = current.run_block(("double_block", i), given, lambda: toy.block(i, given))
        current.close()
    assert len(run.plan.leaders) == 3


@pytest.mark.parametrize("method", ("squared_norm", "copies", "add_residuals"))
def test_out_of_memory_ends_the_cache_and_not_the_run(method, monkeypatch):
    def fail(*args):
        raise torch.cuda.OutOfMemoryError("no memory")

    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5))
    answers = [call(toy, run, X) for _ in range(3)]
    monkeypatch.setattr(f"precisecache_core.blockcache.block_pass.{method}", fail)
    answers += [call(toy, run, X) for _ in range(6)]
    assert all(torch.equal(answer, answers[0]) for answer in answers[3:])
    assert run.cache_bytes == 0 and "cache_device" in run.journal.warnings[0] and len(run.journal.warnings) == 1


def test_a_range_that_began_to_be_skipped_is_skipped_to_its_end():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(3):
        expected = call(toy, run, X)
    run.begin_call()
    current = run.open_pass(BRANCHES)
    state = {"img": X}
    for i in range(6):
        given = state
        state = current.run_block(("double_block", i), given, lambda: toy.block(i, given))
        if i == 1:  # the leader of 1 and 2; here another thread's pass gives up
            run.stand_aside("a test")
    current.close()
    assert run.tally.block_calls_skipped == 2 and torch.allclose(state["img"], expected)


def test_release_lets_go_of_every_tensor():
    toy, run = Toy(GAINS), BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(4):
        call(toy, run, X)
    assert run.cache_bytes > 0
    run.release()
    assert run.cache_bytes == 0 and not run.residuals


@pytest.mark.parametrize(
    "setting, value",
    [
        ("cache_rate", 1.0),
        ("cache_rate", -0.1),
        ("cache_rate", float("nan")),
        ("cache_rate", "0.4"),
        ("reuse_steps", 0),
        ("reuse_steps", 1.5),
        ("warmup", 1),
        ("start_percent", 1.0),
        ("start_percent", -0.1),
        ("storage", "both"),
        ("cache_device", "disk"),
    ],
)
def test_bad_settings_name_setting_value_and_remedy(setting, value):
    with pytest.raises(ValueError, match=f"PreciseCache: {setting} must be .*got .*\\. ."):
        BlockCacheConfig(**{setting: value})


class Module(torch.nn.Module):
    def forward(self, x, scale=1.0):
        return x + scale


class TwoStreams(torch.nn.Module):
    def forward(self, hidden_states, encoder_hidden_states, temb=None):
        return hidden_states + 1, encoder_hidden_states + 2


def test_forwards_are_swapped_for_a_pass_and_restored():
    blocks = torch.nn.ModuleList(Module() for _ in range(4))
    run = BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(4):
        run.begin_call()
        current = run.open_pass(BRANCHES)
        with swapped_forwards(blocks, current):
            x = X
            for block in blocks:
                x = block(x, scale=2.0)
        current.close()
        assert torch.equal(x, X + 8) and all("forward" not in vars(block) for block in blocks)
    assert run.tally.block_calls_skipped == 2


def test_blocks_of_two_streams_are_swapped_and_restored_after_an_error():
    blocks = torch.nn.ModuleList(TwoStreams() for _ in range(2))
    run = BlockCacheRun(BlockCacheConfig(0.5))
    for _ in range(4):
        run.begin_call()
        current = run.open_pass(BRANCHES)
        with swapped_forwards(blocks, current, ("hidden_states", "encoder_hidden_states")):
            image, text = X, X[:, :1]
            for block in blocks:
                image, text = block(hidden_states=image, encoder_hidden_states=text)
        current.close()
        assert torch.equal(image, X + 2) and torch.equal(text, X[:, :1] + 4)
    with pytest.raises(RuntimeError), swapped_forwards(blocks, current):
        raise RuntimeError
    assert all("forward" not in vars(block) for block in blocks)
