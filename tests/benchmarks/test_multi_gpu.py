"""What a rank of several computes, keeps and sends; the stack that is timed on several GPUs."""

from dataclasses import replace

import pytest
import torch

from benchmarks import rank_timing
from benchmarks.counts import counted
from benchmarks.group_course import Twins, counted_course
from benchmarks.meter import flop_counter
from benchmarks.rank_timing import TINY, Stack, inputs_of, ratios, to_heads, to_tokens
from benchmarks.sequence_parallel import Course, blocks_of, course_of, forward_of, run_of, trial_latent, wan_block
from benchmarks.tables import multi_gpu
from precisecache_core.group import MESSAGE_BYTES
from testkit.full_size import MODELS

pytestmark = pytest.mark.usefixtures("host_of_benchmarks", "_without_gradients")
LATENT = (16, 3, 6, 10)  # 45 tokens: 2, 4 and 8 ranks have to pad
SMALL = (1, 16, 2, 8, 8)


@pytest.fixture
def _without_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", ("wan1.3b", "hunyuan"))
def test_one_rank_computes_what_torch_counts_and_sends_nothing(name):
    one, whole = forward_of(name, LATENT, 1), counted(name, LATENT, MODELS[name].branches)
    assert (one.macs, one.attention) == (whole.macs, whole.attention)
    assert (one.tokens, one.sent, one.block_sent) == (45, 0, 0)


@pytest.mark.parametrize("ranks", (1, 2, 4))
def test_a_block_of_a_rank_computes_what_its_program_does(ranks):
    # the timed stack, with an all-to-all that changes nothing, because shapes decide what torch counts
    spec = replace(MODELS["wan14b"], dim=64, text=(5, 8), sizes={"ffn_dim": 96})
    size = replace(TINY, tokens=30, dim=64, ffn=96, layers=1, rows=1)
    block = wan_block(spec, 30, ranks)
    stack = Stack(size, ranks, lambda given: given, "meta")
    counter = flop_counter()
    with counter:
        stack.call(*inputs_of(size, 0, ranks, "meta"))
    assert counter.get_total_flops() / 2 == block.split + block.whole
    assert block.tokens == {1: 30, 2: 15, 4: 8}[ranks]


def test_what_is_split_and_what_is_not():
    # by hand: width 5120, 13824 between, 512 tokens of text, 16 tokens of video on 4 ranks
    block = wan_block(MODELS["wan14b"], 13, 4)
    assert block.tokens == 4
    assert block.split == 4 * (6 * 5120**2 + 2 * 5120 * 13824) + 2 * 16 * 16 * 5120 / 4
    assert block.whole == 2 * 512 * 5120**2 + 2 * 16 * 512 * 5120
    assert block.sent == (6 * 4 + 2 * 512) * 5120 * 3 / 4


def test_hunyuan_shards_text_and_image_apart_and_then_together():
    (doubles, double), (singles, single) = blocks_of("hunyuan", 45, 8)
    assert (doubles, singles) == (20, 40)
    assert double.tokens == 6 + 32 and single.tokens == 38  # ceil(45 / 8) + 256 / 8; ceil(301 / 8)
    assert double.attention == 2 * (8 * 38) ** 2 * 3072 / 8


def test_courses():
    assert course_of("none", 40) == Course(50, 0, 0)
    assert course_of("base", 40) == Course(12, 50, 0)  # 9 and 7 % of 50, rounded down
    # 8.1 and 4 %; three calls to the first refresh, three that skip 16 blocks, a refresh, and three again
    assert course_of("flash", 40) == Course(10, 50, 6 * 16)


def test_a_run_adds_up():
    call, trial = (forward_of("wan1.3b", latent, 2) for latent in (LATENT, trial_latent("wan1.3b", LATENT)))
    run = run_of("wan1.3b", LATENT, 2, Course(10, 4, 7))
    assert run.macs == pytest.approx(10 * call.macs + 4 * trial.macs - 7 * call.block)
    assert run.sent == pytest.approx(10 * call.sent + 4 * trial.sent - 7 * call.block_sent)


def test_all_to_all_and_back():
    # four ranks in one process: what rank i has for rank j goes to place j of rank i, and comes from there
    ranks, x = 4, torch.randn(2, 8, 4, 3)
    shards = list(x.split(2, 1))

    def over_all(function, given):
        asked, answers = [], []
        for tensor in given:
            function(tensor, ranks, lambda chunks: asked.append(chunks) or chunks)
        for rank, tensor in enumerate(given):
            answers.append(function(tensor, ranks, lambda chunks, rank=rank: torch.stack([a[rank] for a in asked])))
        return answers

    heads = over_all(to_heads, shards)
    assert all(torch.equal(part, x[:, :, rank : rank + 1]) for rank, part in enumerate(heads))
    assert torch.equal(torch.cat(over_all(to_tokens, heads), 1), x.flatten(2))


def test_shards_are_parts_of_the_whole():
    size = replace(TINY, tokens=10)
    whole, text = inputs_of(size, 0, 1, "cpu")
    shards = [inputs_of(size, rank, 4, "cpu") for rank in range(4)]
    together = torch.cat([x for x, _ in shards], 1)
    assert torch.equal(together[:, :10], whole) and not together[:, 10:].any()
    assert all(torch.equal(each, text) for _, each in shards)


def test_timing_compares_calls_made_side_by_side(monkeypatch):
    assert ratios([1.0, 2.0, 4.0], [1.1, 2.0, 6.0]) == (pytest.approx(1.1), 1.0, 1.5)
    times = {1: ([8.0], []), 2: ([4.0, 5.0], [5.0, 5.0])}
    monkeypatch.setattr(
        rank_timing,
        "timed",
        lambda ranks, *_: dict(zip(("plain", "exchanging"), times[ranks]), result=torch.ones(1)),
    )
    _, one, two = rank_timing.timing_lines((1, 2), TINY, 2, 64)
    assert one.split() == ["1", "8", "-", "-", "1.00", "0.0e+00"]
    assert two.split() == ["2", "4.5", "5", "1.1250", "(1.0000,", "1.2500)", "1.78", "0.0e+00"]


def test_every_table_says_what_was_computed(monkeypatch):
    monkeypatch.setattr(multi_gpu, "bytes_held", lambda tokens, config, skipped: (tokens * 1e9, 0, 0))
    case = "wan1.3b", (80, 48)
    tables = [multi_gpu.mac_lines(*case), multi_gpu.memory_lines(*case, 4), multi_gpu.sent_lines(*case)]
    for lines in tables:
        title, *rest = lines
        assert title.startswith("COMPUTED") and len(rest) > 3
    memory = [line.split() for line in multi_gpu.memory_lines(*case, 4)]
    # 315 tokens on 8 ranks are 40 on each; 28 GB of weights, or 3.5
    assert memory[-1][-6:] == ["40.0", "40.0", "68.0", "68.0", "43.5", "43.5"]
    *_, turbo = multi_gpu.paper_lines("wan14b", case[1])
    assert turbo.split()[:5] == ["8", "459", "229", "2.00", "7.25"]


def test_several_gpus_are_timed_and_one_is_not(monkeypatch):
    monkeypatch.setattr(multi_gpu, "timing_lines", lambda ranks, size, rounds, nbytes: [(ranks, size, rounds, nbytes)])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    (nothing,) = multi_gpu.measured_lines(40, 2)
    assert nothing.startswith("MEASURED: nothing") and "this machine has 1" in nothing
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    title, (ranks, size, *rest) = multi_gpu.measured_lines(40, 2)
    assert title.startswith("MEASURED seconds") and (ranks, rest) == ([1, 2, 4], [2, MESSAGE_BYTES])
    assert (size.tokens, size.text, size.dim, size.ffn, size.heads, size.rows) == (75600, 512, 5120, 13824, 40, 2)


def test_kept_predictions_of_a_run():
    found = counted_course("flash", 16, shape=SMALL)
    assert (found.computed, found.trials, found.skipping) == (8, 16, 4)
    assert found.kept == 4 and found.exchanges == 0


def test_exchanges_of_a_group(monkeypatch):
    monkeypatch.setattr(multi_gpu, "CACHES", ("flash",))
    alone, found = counted_course("flash", 16, shape=SMALL), counted_course("flash", 16, Twins(), SMALL)
    assert replace(found, exchanges=0) == alone
    # one a call, one a trial, one for the plan, two a computed call (its blocks, its correction), two a pass that skips
    assert found.exchanges == 16 + 16 + 1 + 2 * 8 + 2 * 4
    *_, flash, share = multi_gpu.exchange_lines(16, shape=SMALL)
    assert str(found.exchanges) in flash.split() and share.startswith("flash on 8 ranks")
