"""One call asked and answered, as a sampling loop of one's own does it."""

import torch
from toys import EAGER, SHAPE, plain

from precisecache_core import FLOW_MODEL, BlockCacheConfig, CachedRun, LFCacheRun, flow_sigmas


def test_a_loop_of_ones_own_decides_as_run_denoised_does():
    run, x = LFCacheRun(plain(alpha=2.5), FLOW_MODEL), torch.zeros(SHAPE)
    seen = []
    for sigma in flow_sigmas(10)[:-1]:
        call = run.begin(x, sigma)
        if call.trial is not None:
            call.observe(call.trial.x - call.trial.sigma * sigma)
        answer = call.reused()[0] if call.is_reused else call.finish(x - sigma * sigma)
        seen.append("R" if call.is_reused else "C")
        assert answer.shape == SHAPE
    assert "".join(seen) == run.journal.decisions == "CCCRCRCRCR"


def test_the_unconditional_prediction_is_reused_beside_the_guided_one():
    run, x = LFCacheRun(plain(alpha=EAGER, reuse="taylor"), FLOW_MODEL), torch.zeros(SHAPE)
    answers = []
    for sigma in flow_sigmas(10)[:-1]:
        call = run.begin(x, sigma, with_uncond=True)
        if call.trial is not None:
            call.observe(call.trial.x - call.trial.sigma * sigma)
        if call.is_reused:
            answers.append(call.reused())
        else:
            call.finish(x - sigma * sigma, uncond=x - sigma * 2 * sigma)
    assert run.journal.decisions == "CCC" + "R" * 7
    for (denoised, uncond), sigma in zip(answers, flow_sigmas(10)[3:]):
        torch.testing.assert_close(denoised, x - sigma * sigma, rtol=0, atol=1e-5)
        torch.testing.assert_close(uncond, x - 2 * sigma * sigma, rtol=0, atol=1e-5)


def test_a_call_is_computed_if_no_unconditional_prediction_is_held():
    run, x = LFCacheRun(plain(alpha=EAGER), FLOW_MODEL), torch.zeros(SHAPE)
    for step, sigma in enumerate(flow_sigmas(10)[:-1]):
        call = run.begin(x, sigma, with_uncond=step >= 5)
        if call.trial is not None:
            call.observe(call.trial.x - call.trial.sigma * sigma)
        if not call.is_reused:
            call.finish(x - sigma * sigma, uncond=x - sigma if step >= 5 else None)
        else:
            call.reused()
    assert run.journal.decisions == "CCCRRCRRRR"


def test_a_reused_call_that_is_finished_after_all_counts_as_computed():
    run, x = LFCacheRun(plain(alpha=EAGER), FLOW_MODEL), torch.zeros(SHAPE)
    for sigma in flow_sigmas(10)[:-1]:
        call = run.begin(x, sigma)
        if call.trial is not None:
            call.observe(call.trial.x - call.trial.sigma * sigma)
        if call.is_reused:
            call.reused()
            run.stand_aside("a test")
        answer = call.finish(x - sigma)
        assert torch.equal(answer, x - sigma)
    assert run.journal.decisions == "C" * 10


def test_denoised_begins_a_call_of_blockcache_as_begin_does():
    run, x = CachedRun(plain(alpha=0.0), BlockCacheConfig(0.5), FLOW_MODEL, 10), torch.zeros(SHAPE)
    modes = []

    def model():
        current = run.blockcache.open_pass([("cond", slice(0, 1))])
        modes.append(run.blockcache.mode)
        for i in range(4):
            current.run_block(("double_block", i), {"img": x}, lambda: {"img": x + 1})
        current.close()
        return x

    for sigma in flow_sigmas(10)[:5]:
        run.denoised(x, sigma, model, lambda small, level: small)
    assert modes == ["measure", "measure", "refresh", "reuse", "reuse"]
