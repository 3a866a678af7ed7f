"""The peers' methods that benchmarks compare with: their rules on numbers, and their runs in the real host."""

import comfy.model_base
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP, copy_nested_dicts

from benchmarks.meter import Meter
from benchmarks.peers import calibrate
from benchmarks.peers.block_stack import BlockStack, ReusedStack
from benchmarks.peers.broadcast import EVERYWHERE, Broadcast, attach_fora, attach_pab
from benchmarks.peers.first_block import FirstBlockRule, attach_first_block
from benchmarks.peers.magcache import MagCacheRule, attach_magcache, magnitude_ratio, nearest
from benchmarks.peers.taylorseer import Feature, TaylorSeer, attach_taylorseer
from benchmarks.peers.teacache import TeaCacheRule, attach_teacache, fit_coefficients, signal_of
from testkit.host_caches import attach_easycache, attach_lazycache

pytestmark = pytest.mark.usefixtures("host_of_benchmarks")
STEPS = 12
LAST = 15  # index of the last block
FOREVER = float("inf")
RATIOS = ([1.0] * STEPS, [1.0] * STEPS)
UNEQUAL = ([0.9] * STEPS, [0.7] * STEPS)  # cond is reused more often than uncond

NEVER = {
    "easycache": lambda m: attach_easycache(m, 0.0),
    "lazycache": lambda m: attach_lazycache(m, 0.0),
    "teacache modulated": lambda m: attach_teacache(m, 0.0),
    "teacache embedding": lambda m: attach_teacache(m, 0.0, signal="embedding"),
    "magcache": lambda m: attach_magcache(m, 0.0, RATIOS),
    "first block": lambda m: attach_first_block(m, 0.0),
    "fora": lambda m: attach_fora(m, 1),
    "pab": lambda m: attach_pab(m, 1, 1, 1),
    "taylorseer modules": lambda m: attach_taylorseer(m, 1),
    "taylorseer block": lambda m: attach_taylorseer(m, 1, features="block"),
}
# with those of the twelve calls in which the source's rule computes the last block
GENEROUS = {
    "teacache modulated": (lambda m: attach_teacache(m, FOREVER), [0, 11]),
    "teacache embedding": (lambda m: attach_teacache(m, FOREVER, signal="embedding"), [0, 1, 2, 3, 4]),
    "magcache": (lambda m: attach_magcache(m, 0.5, RATIOS), [0, 1, 6, 11]),  # four skips at most
    "first block": (lambda m: attach_first_block(m, FOREVER), [0]),
    "fora": (lambda m: attach_fora(m, 3), [0, 3, 6, 9]),
    "pab": (lambda m: attach_pab(m, 2, 6, 2, EVERYWHERE), [0, 2, 4, 6, 8, 10]),
    "taylorseer modules": (lambda m: attach_taylorseer(m, 3), [0, 1, 2, 5, 8, 11]),
    "taylorseer block": (lambda m: attach_taylorseer(m, 3, 2, features="block"), [0, 1, 2, 5, 8, 11]),
}
CACHES = {name: attach for name, (attach, _) in GENEROUS.items()} | {
    "easycache": lambda m: attach_easycache(m, 0.5),
    "lazycache": lambda m: attach_lazycache(m, 0.5),
}


def watch(patcher, seen):
    """A clone that appends (call, block, is self-attention, rows) to `seen` for every attention."""
    patcher = patcher.clone()

    def attention(func, q, k, v, *args, **kwargs):
        options = kwargs["transformer_options"]
        call = options["sample_sigmas"].tolist().index(options["sigmas"].flatten()[0].item())
        seen.append((call, options["block_index"], q.shape == k.shape, len(q)))
        return func(q, k, v, *args, **kwargs)

    patcher.model_options["transformer_options"]["optimized_attention_override"] = attention
    return patcher


def decide(rule, *signals):
    """The rule's decisions as a string: C computed, R reused."""
    return "".join("C" if rule.computes(torch.tensor([float(s)])) else "R" for s in signals)


# rules on numbers


def test_teacache_adds_up_changes_of_consecutive_signals():
    signals = (10, 11, 12.1, 13.31, 14.641, 16.1051)  # each 10 % larger than the one before
    assert decide(TeaCacheRule(0.25, (1.0, 0.0), 1, 1, 6), *signals) == "CRRCRC"  # the last call is always computed
    assert decide(TeaCacheRule(0.25, (1.0, 0.0), 1, 0, 6), *signals) == "CRRCRR"
    assert decide(TeaCacheRule(0.25, (2.0, 0.0), 1, 1, 6), *signals) == "CRCRCC"
    assert decide(TeaCacheRule(0.25, (100.0, 0.0, 0.0), 1, 1, 6), *signals) == "CCCCCC"
    assert decide(TeaCacheRule(FOREVER, (1.0, 0.0), 5, 0, 6), *signals) == "CCCCCR"


def test_teacache_computes_where_the_change_is_not_a_number():
    assert decide(TeaCacheRule(FOREVER, (1.0, 0.0), 1, 0, 4), 10, float("nan"), 10, 10) == "CCCR"


def test_teacache_fit_finds_the_polynomial():
    x = torch.linspace(0, 1, 20).double()
    y = 2 * x**4 - 3 * x**3 + x**2 + 0.5 * x + 0.1
    assert fit_coefficients(x.tolist(), y.tolist()) == pytest.approx([2, -3, 1, 0.5, 0.1])


def test_magcache_adds_up_the_errors_of_the_accumulated_ratio():
    # the error grows by 1 - 0.9 = 0.1, then by 1 - 0.81 = 0.19, then by 1 - 0.729 = 0.271
    def decisions(threshold, max_skips):
        rule = MagCacheRule(threshold, [0.9] * 10, max_skips, 0.2)
        return "".join("C" if rule.computes() else "R" for _ in range(10))

    assert decisions(0.3, 4) == "CCRRCRRCRR"
    assert decisions(0.28, 4) == "CCRCRCRCRC"
    assert decisions(0.57, 4) == "CCRRRCRRRC"
    assert decisions(0.3, 1) == "CCRCRCRCRC"


def test_magcache_ratios():
    residual, previous = torch.tensor([[3.0, 4.0], [6.0, 8.0]]), torch.tensor([[0.0, 10.0], [5.0, 0.0]])
    assert magnitude_ratio(residual, previous) == 1.25  # the mean of 0.5 and 2; the ratio of the means is 1
    assert nearest([0, 1, 2, 3, 4], 3) == [0, 2, 4]
    assert nearest([0, 1, 2, 3, 4], 5) == [0, 1, 2, 3, 4]
    assert nearest([0, 1], 4) == [0, 0, 1, 1]
    assert nearest([0, 1, 2], 1) == [2]


def test_first_block_compares_with_the_last_computed_call():
    rule = FirstBlockRule(0.15)
    # 12 is compared with 10, which is 20 % less, and not with 11, which is less than 10 % away
    assert [rule.reuses(torch.tensor([v])) for v in (10.0, 11.0, 12.0, 13.0)] == [False, True, False, True]


def test_broadcast_keeps_each_kind_for_its_range_inside_the_window():
    state = Broadcast({"self_attn": 2, "cross_attn": 3, "ffn": 1}, (450, 930))
    given = {kind: "" for kind in state.ranges}
    for call, sigma in enumerate((1.0, 0.92, 0.9, 0.8, 0.7, 0.5, 0.45, 0.2)):
        state.start_call(sigma)
        for kind in given:
            value = state.run_block((kind, 0), {}, lambda: {"x": call})["x"]
            given[kind] += str(value)
    assert given == {"self_attn": "00224467", "cross_attn": "00033367", "ffn": "01234567"}


def test_taylorseer_computes_the_first_calls_and_every_nth():
    def decisions(interval, first):
        rule = TaylorSeer(interval, 1, first)
        word = ""
        for _ in range(10):
            rule.start_call()
            word += "C" if rule.is_computed else "R"
        return word

    assert decisions(3, 1) == "CRRCRRCRRC"
    assert decisions(3, 3) == "CCCRRCRRCR"
    assert decisions(1, 1) == "CCCCCCCCCC"


@pytest.mark.parametrize("order", (1, 2, 3))
def test_taylorseer_is_exact_for_a_line_and_too_small_for_a_parabola(order):
    line, parabola = Feature(order), Feature(order)
    for call in (0, 3, 6, 9):
        line.update(5.0 + 2 * call, call)
        parabola.update(float(call**2), call)
    for call in (10, 11):
        assert line.forecast(call) == pytest.approx(5 + 2 * call)
        # the difference over the last interval is the slope in its middle, not at its end
        short = 3 * (call - 9) + (call - 9) ** 2 * (order == 1)
        assert parabola.forecast(call) == pytest.approx(call**2 - short)


def test_taylorseer_repeats_the_last_value_until_it_has_a_difference():
    feature = Feature(2)
    feature.update(1.0, 0)
    assert feature.forecast(5) == 1.0
    feature.update(3.0, 1, is_differenced=False)
    assert feature.forecast(5) == 3.0
    feature.update(4.0, 2)
    assert feature.forecast(4) == 6.0


def test_taylorseer_forecasts_the_residual_of_a_block():
    state = TaylorSeer(2, 1, 2)

    def block(x):
        return {"x": 4 * x}

    outs = []
    for x in (10.0, 11.0, 20.0):
        state.start_call()
        outs.append(state.run_block(("block", 0), {"x": x}, lambda: block(x))["x"])
    assert outs == [40, 44, 20 + 36]  # the residuals are 30 and 33, so 36 is forecast; a computed call would give 80


class Scripted(ReusedStack):
    def __init__(self, words):
        super().__init__(2)
        self.words = iter(words)

    def start_call(self, img, vec):
        self.is_reused = next(self.words) == "R"


def test_the_stack_computes_the_rows_of_one_branch_and_reuses_the_other():
    stack = BlockStack(lambda cond: Scripted(("CC", "CR")[cond]), False)
    patches = [stack.patch(i, None) for i in range(2)]
    given = []

    def block(args):
        given.append(args["img"].flatten().tolist())
        return {"img": 4 * args["img"] + args["txt"]}

    for value, outs in ((10.0, [160.0, 160.0]), (11.0, [176.0, 161.0])):
        img = torch.full((2, 1, 1), value)
        args = {
            "txt": torch.zeros(2, 1, 1),
            "vec": torch.zeros(2, 1, 6, 1),
            "pe": torch.zeros(1, 1),
            "transformer_options": {"cond_or_uncond": [0, 1], "uuids": ["a", "b"]},
        }
        for patch in patches:
            img = patch(args | {"img": img}, {"original_block": block})["img"]
        assert img.flatten().tolist() == outs
    assert given == [[10, 10], [40, 40], [11], [44]]


# in the host


@pytest.fixture(scope="module")
def bare(bench):
    meter = Meter()
    return bench.sample(meter.attach(bench.model), steps=STEPS), meter.flops


@pytest.mark.parametrize("name", NEVER)
def test_without_reuse_equals_the_bare_model(bench, bare, name):
    assert torch.equal(bench.sample(NEVER[name](bench.model), steps=STEPS), bare[0])


@pytest.mark.parametrize("name", CACHES)
def test_reuse_costs_less_and_leaves_nothing_behind(bench, bare, name):
    model = CACHES[name](bench.model)
    options = copy_nested_dicts(model.model_options)
    meter = Meter()
    first = bench.sample(meter.attach(model), steps=STEPS)
    assert 0 < meter.flops < 0.9 * bare[1]
    assert torch.isfinite(first).all() and not torch.equal(first, bare[0])
    assert torch.equal(first, bench.sample(model, steps=STEPS))  # no state is left from the run before
    assert model.model_options == options
    assert not any("forward" in module.__dict__ for module in bench.model.model.diffusion_model.modules())


@pytest.mark.parametrize("name", GENEROUS)
def test_exactly_the_calls_of_the_rule_are_computed(bench, name):
    attach, calls = GENEROUS[name]
    bench.sample(watch(attach(bench.model), seen := []), steps=STEPS)
    assert [call for call, block, is_self, rows in seen if block == LAST and is_self] == calls
    assert {rows for *_, rows in seen} == {2}
    if name == "first block":
        assert [call for call, block, is_self, _ in seen if block == 0 and is_self] == list(range(STEPS))
    if name == "pab":
        assert [call for call, block, is_self, _ in seen if block == LAST and not is_self] == [0, 6]


def test_attaching_twice_equals_attaching_once(bench):
    for attach in (lambda m: attach_first_block(m, 0.2), lambda m: attach_taylorseer(m, 3)):
        assert torch.equal(bench.sample(attach(attach(bench.model))), bench.sample(attach(bench.model)))


def test_branches_of_one_batch_decide_separately(bench):
    bench.sample(watch(attach_magcache(bench.model, 0.25, UNEQUAL), seen := []), steps=STEPS)
    last = {call: rows for call, block, is_self, rows in seen if block == LAST and is_self}
    # threshold 0.25: cond skips at an error of 0.1 and computes at 0.29; uncond computes at 0.3
    assert last == {0: 2, 1: 2} | {call: 1 + (call % 2) for call in range(2, STEPS)}


@pytest.mark.parametrize(
    "attach",
    (
        lambda m: attach_teacache(m, 0.2),
        lambda m: attach_magcache(m, 0.25, UNEQUAL),
        GENEROUS["fora"][0],
        GENEROUS["pab"][0],
        GENEROUS["taylorseer block"][0],
    ),
)
def test_batched_guidance_equals_split_guidance(bench, monkeypatch, attach):
    model = attach(bench.model)
    together = bench.sample(model, steps=STEPS)
    # the host batches the branches only if they fit in memory
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: 1e18)
    apart = bench.sample(watch(model, seen := []), steps=STEPS)
    assert {rows for *_, rows in seen} == {1}
    assert sum(block == LAST and is_self for _, block, is_self, _ in seen) < 2 * STEPS - 4  # reused some
    # another batch size rounds differently in float32, over twelve steps at cfg 4
    assert (together - apart).abs().max() < 2e-4 * together.abs().max()


@pytest.mark.parametrize("name", GENEROUS)
def test_after_an_exception_the_guider_has_its_own_options(bench, bare, name):
    model = GENEROUS[name][0](bench.model)

    def fail(executor, x, timestep, *args, **kwargs):
        if timestep.flatten()[0] < 900:  # not at the first call
            raise RuntimeError("stop")
        return executor(x, timestep, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "fail", fail)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(bench.positive, bench.negative)
    guider.set_cfg(4.0)
    options = guider.model_options
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
    with pytest.raises(RuntimeError, match="stop"):
        guider.sample(bench.noise(), torch.zeros_like(bench.noise()), comfy.samplers.sampler_object("euler"), sigmas)
    assert guider.model_options is options
    assert not any("forward" in module.__dict__ for module in bench.model.model.diffusion_model.modules())
    assert torch.equal(bench.sample(bench.model, steps=STEPS), bare[0])


def test_a_patch_of_another_pack_is_called_for_computed_blocks(bench):
    calls = []

    def other(args, extra):
        calls.append(1)
        return extra["original_block"](args)

    model = bench.model.clone()
    model.set_model_patch_replace(other, "dit", "double_block", LAST)
    bench.sample(attach_teacache(model, FOREVER), steps=STEPS)
    assert len(calls) == 2


def test_teacaches_signal_is_the_input_of_the_first_attention(bench):
    block = bench.model.model.diffusion_model.blocks[0]
    entered, watched = [], []
    handle = block.self_attn.register_forward_pre_hook(lambda module, args: entered.append(args[0]))

    def patch(args, extra):
        watched.append(signal_of("modulated", block, args["img"], args["vec"]))
        return extra["original_block"](args)

    model = bench.model.clone()
    model.set_model_patch_replace(patch, "dit", "double_block", 0)
    try:
        bench.sample(model, steps=3)
    finally:
        handle.remove()
    assert len(entered) == 3
    for attention_input, signal in zip(entered, watched, strict=True):
        assert torch.allclose(attention_input, signal, atol=1e-6)


# calibration


def test_calibration_records_an_unchanged_run(bench, bare):
    outs = []
    recorders = calibrate.record(lambda model: outs.append(bench.sample(model, steps=STEPS)), bench.model)
    assert torch.equal(outs[0], bare[0])
    found = calibrate.calibrate([recorders, recorders])
    assert [len(r) for r in found["magcache"]] == [STEPS, STEPS]
    assert [len(c) for c in found["teacache"].values()] == [5, 5]
    for recorder in recorders.values():
        assert len(recorder.output_changes) == STEPS - 1
        # cond and uncond have the same embedding, but different residuals
        assert recorder.input_changes["embedding"] == pytest.approx(recorders[0].input_changes["embedding"])
    assert recorders[0].ratios != recorders[1].ratios


def test_the_kept_calibration_can_be_attached(bench):
    kept = calibrate.read_calibration(calibrate.calibration_path(30, (1, 16, 4, 16, 16)))
    assert "calibrate" in kept["command"]
    assert all(ratios[0] == 1.0 and len(ratios) == 30 for ratios in kept["magcache"])
    for model in (
        attach_magcache(bench.model, 0.2, kept["magcache"]),
        *(attach_teacache(bench.model, 0.2, fit, name) for name, fit in kept["teacache"].items()),
    ):
        bench.sample(watch(model, seen := []), steps=20)
        assert 2 <= len({call for call, block, *_ in seen if block == LAST}) < 18
