"""Correction: how far reused calls displaced x, found at the next computed call, and taken back."""

import pytest
import torch

from precisecache_core import FLOW_MODEL, CachedRun, LFCacheConfig, flow_sigmas
from precisecache_core.lfcache.latent.parametrization import Parametrization
from precisecache_core.lfcache.latent.trial import FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING
from precisecache_core.lfcache.predictions import Predictions

SHAPE = (2, 2, 2, 4, 4)
SIGMAS = flow_sigmas(20, 2.0).double()
COMPUTED = (0, 1, 2, 5, 9, 14, 19)


def kept(reuse="corrected", device="model", levels=()):
    return Predictions(LFCacheConfig(reuse=reuse, cache_device=device), True, levels)


def field(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(predictions, derivative, computed=COMPUTED, sigmas=SIGMAS, noise_after=(), move=None):
    """The path of x, one latent per call and the result, of a loop that moves x by derivatives.

    derivative(x, sigma): the model's. move(x, d, sigma, following): one step, Euler's by default.
    noise_after: calls after which noise is added to x.
    """
    x, path = field(1), []
    for call, (sigma, following) in enumerate(zip(sigmas.tolist(), sigmas[1:].tolist())):
        path.append(x)
        if computed is None:
            d = derivative(x, sigma)
        elif call in computed:
            (d,) = predictions.store(x, sigma, derivative(x, sigma), None)
        else:
            (d,) = predictions.predict(x, sigma, False)
        x = x + (following - sigma) * d if move is None else move(x, d, sigma, following)
        if call in noise_after:
            x = x + 0.5 * field(100 + call)
    return [*path, x]


def error(derivative, predictions=None, **options):
    """RMS distance of the result from that of computing every call."""
    true = sample(None, derivative, None, **options)[-1]
    return (sample(predictions or kept(), derivative, **options)[-1] - true).square().mean().sqrt().item()


def curved(x, sigma):
    """Depends on sigma only, so that a displacement of x stays."""
    return field(2) * (1 + sigma**3) + field(3) * sigma


def test_the_displacement_is_that_of_the_reused_calls_against_interpolation():
    predictions = kept()
    path = sample(predictions, curved, computed=(0, 1, 2, 6), sigmas=SIGMAS[:8])
    s = SIGMAS.tolist()
    d = [curved(None, sigma) for sigma in s]

    def line(a, b, k):  # through the derivatives of calls a and b, at call k
        return d[a] + (d[b] - d[a]) * (s[k] - s[a]) / (s[b] - s[a])

    reused = (3, 4, 5)
    answers = [(path[k + 1] - path[k]) / (s[k + 1] - s[k]) for k in reused]  # what the sampler was given
    expected = sum((s[k + 1] - s[k]) * (answer - line(2, 6, k)) for k, answer in zip(reused, answers))
    assert expected.norm() > 1e-3
    torch.testing.assert_close(predictions.corrector.displacement, expected, rtol=1e-4, atol=1e-6)
    assert predictions.correction.item() == pytest.approx(expected.square().mean().sqrt().item(), rel=1e-4)


def test_it_is_taken_back_while_sigma_falls_by_the_last_gap():
    """What stays is the error of interpolating, and half of e / sigma in each answer that was corrected."""
    predictions = kept(levels=SIGMAS[:17].tolist())
    s, d = SIGMAS.tolist(), [curved(None, sigma) for sigma in SIGMAS.tolist()]
    path = sample(predictions, curved, computed=(0, 1, 2, 6), sigmas=SIGMAS[:8])
    e = predictions.corrector.displacement
    for call in range(7, 16):
        (answer,) = predictions.store(path[-1], s[call], d[call], None)
        path.append(path[-1] + (s[call + 1] - s[call]) * answer)
    line = [d[2] + (d[6] - d[2]) * (s[k] - s[2]) / (s[6] - s[2]) for k in range(7)]
    interpolated = sum((s[k + 1] - s[k]) * (line[k] - d[k]) for k in (3, 4, 5))
    true = field(1) + sum((s[k + 1] - s[k]) * d[k] for k in range(16))
    assert (path[-1] - true).norm() > 0
    moved = path[-1] - true - interpolated
    left = 1 - (s[6] - s[7]) / (s[2] - s[6])  # at call 7, whose gap is one step long
    halves = -0.5 * e * ((s[7] - s[6]) / s[6] + left * (s[8] - s[7]) / s[7])
    assert (moved - halves).norm() < 0.05 * e.norm() and e.norm() > 1e-3


@pytest.mark.parametrize(
    "derivative",
    [
        curved,
        lambda x, sigma: 0.3 * x + curved(x, sigma),
    ],
    ids=["kept", "grown"],
)
def test_correction_halves_the_error_at_least(derivative):
    assert error(derivative) < 0.5 * error(derivative, kept("fitted"))


def test_nothing_is_changed_where_the_trend_was_right():
    predictions = kept()
    path = sample(predictions, lambda x, sigma: field(2) + sigma * field(3))
    true = sample(None, lambda x, sigma: field(2) + sigma * field(3), None)
    torch.testing.assert_close(path[-1], true[-1])


def test_a_run_without_reused_calls_gets_back_the_very_tensors():
    predictions = kept()
    for sigma in SIGMAS[:6].tolist():
        d = field(int(1000 * sigma))
        (answer,) = predictions.store(field(1), sigma, d, None)
        assert answer is d
    assert predictions.correction is None and predictions.corrector.displacement is None


def test_what_is_left_joins_the_next_displacement():
    """Call 6 hands back over four steps; call 7 is computed after one of them and takes over the rest."""
    predictions = kept()
    path = sample(predictions, curved, computed=(0, 1, 2, 6), sigmas=SIGMAS[:8])
    first = predictions.corrector.displacement.clone()
    s = SIGMAS.tolist()
    share = (s[6] - s[7]) / (s[2] - s[6])
    predictions.store(path[-1], s[7], curved(None, s[7]), None)
    torch.testing.assert_close(predictions.corrector.displacement, (1 - share) * first)


def test_at_the_end_everything_is_handed_back():
    """The last call is computed after reused ones; its step is the only one left to hand e back."""
    sigmas = SIGMAS[:11]
    for end in (8, 9):
        predictions = kept(levels=sigmas.tolist())
        path = sample(predictions, curved, computed=(0, 1, 2, end), sigmas=sigmas)
        e = predictions.corrector.displacement
        uncorrected = path[end] + sum(
            (b - a) * curved(None, a) for a, b in zip(sigmas[end:-1].tolist(), sigmas[end + 1 :].tolist())
        )
        if end == 9:
            half = 0.5 * e / sigmas[9].item() * (sigmas[10] - sigmas[9]).item()  # d itself lost half of e / sigma
            torch.testing.assert_close(path[-1], uncorrected - e - half)


@pytest.mark.parametrize("noise_after", [range(20), (0,)])
def test_a_sampler_that_adds_noise_is_left_alone(noise_after):
    predictions = kept()
    path = sample(predictions, curved, noise_after=noise_after)
    plain = sample(kept("fitted"), curved, noise_after=noise_after)
    assert predictions.corrector.trust == 0
    torch.testing.assert_close(path[-1], plain[-1])


def test_a_sampler_that_jumps_to_the_estimate_and_adds_noise_is_left_alone():
    """lcm: x becomes the denoised latent plus new noise."""

    def lcm(x, d, sigma, following):
        return x - sigma * d + following * field(int(1000 * sigma))

    predictions = kept()
    sample(predictions, curved, move=lcm)
    assert predictions.corrector.trust == 0


def test_noise_that_begins_in_mid_run_ends_the_correction():
    """sa_solver: the first steps move x by derivatives alone, later ones add noise."""
    predictions = kept()
    sample(predictions, curved, computed=(0, 1, 2, 5, 9), sigmas=SIGMAS[:11])
    assert predictions.corrector.trust == 1 and predictions.correction > 0
    predictions = kept()
    sample(predictions, curved, computed=(0, 1, 2, 5, 9), sigmas=SIGMAS[:11], noise_after=(7,))
    assert predictions.corrector.trust == 0 and predictions.correction == 0


def test_what_is_handed_back_does_not_count_as_noise():
    """A displacement of several steps: x moves back by it, and derivatives alone do not explain that."""
    predictions = kept()
    sample(predictions, lambda x, sigma: field(2) * (1 if sigma > SIGMAS[7] else -1))
    assert predictions.corrector.trust == 1


def test_a_sampler_that_calls_the_model_between_the_levels_is_left_alone():
    """dpm_2: the derivative at the middle of a step is used for all of it, that at its beginning only to get there."""

    def run(predictions):
        x, calls = field(1), 0
        for sigma, following in zip(SIGMAS[:-2].tolist(), SIGMAS[1:-1].tolist()):
            place = x
            for level in (sigma, (sigma * following) ** 0.5):
                if calls % 5 < 2:
                    (d,) = predictions.store(place, level, curved(None, level), None)
                else:
                    (d,) = predictions.predict(place, level, False)
                place = x + ((sigma * following) ** 0.5 - sigma) * d
                calls += 1
            x = x + (following - sigma) * d
        return x

    predictions = kept(levels=SIGMAS.tolist())
    torch.testing.assert_close(run(predictions), run(kept("fitted")))
    assert predictions.correction is None and not predictions.is_owing


def test_what_was_shown_before_a_call_between_the_levels_is_not_reported_again():
    predictions = kept(levels=SIGMAS.tolist())
    path = sample(predictions, curved, computed=(0, 1, 2, 5), sigmas=SIGMAS[:7])
    assert predictions.correction > 0
    between = (SIGMAS[6].item() + SIGMAS[7].item()) / 2
    predictions.store(path[-1], between, curved(None, between), None)
    assert predictions.correction is None and predictions.corrector.displacement is None


def test_going_back_up_begins_another_path():
    predictions = kept()
    sample(predictions, curved, computed=(0, 1, 2), sigmas=SIGMAS[:8])
    assert predictions.is_owing
    predictions.store(field(5), SIGMAS[1].item(), curved(None, SIGMAS[1].item()), None)
    assert not predictions.is_owing and predictions.corrector.displacement is None


def test_each_sample_of_a_batch_is_corrected_by_itself():
    def derivative(x, sigma):
        return curved(x, sigma) * torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)

    predictions = kept()
    sample(predictions, derivative)
    e = predictions.corrector.displacement
    assert e[0].norm() > 0 and e[1].norm() == 0


@pytest.mark.parametrize("device, dtype", [("cpu", torch.float32), ("model", torch.bfloat16), ("model", torch.float16)])
def test_any_dtype_keeps_two_predictions_the_displacement_and_a_latent(device, dtype):
    predictions = kept(device=device)
    for call, sigma in enumerate(SIGMAS.tolist()[:8]):
        x = field(call).to(dtype)
        if call in (0, 1, 2, 6):
            answer = predictions.store(x, sigma, curved(None, sigma).to(dtype), None)[0]
        else:
            answer = predictions.predict(x, sigma, False)[0]
        assert answer.dtype == dtype and answer.shape == x.shape
    assert predictions.nbytes == 4 * field().to(dtype).nbytes


def test_the_unconditional_stream_is_corrected_with_the_guided_one():
    """A *_cfg_pp sampler: x follows the unconditional derivative from the guided estimate."""

    def uncond(x, sigma):
        return curved(x, sigma)

    def guided(x, sigma):
        return curved(x, sigma) + 0.05 * field(6) * sigma**2

    def run(predictions, computed):
        x = field(1)
        for call, (sigma, following) in enumerate(zip(SIGMAS.tolist(), SIGMAS[1:].tolist())):
            if predictions is None:
                g, u = guided(x, sigma), uncond(x, sigma)
            elif call in computed:
                g, u = predictions.store(x, sigma, guided(x, sigma), uncond(x, sigma))
            else:
                g, u = predictions.predict(x, sigma, True)
            x = x - sigma * g + following * u
        return x

    true = run(None, ())
    plain, corrected = ((run(kept(reuse), COMPUTED) - true).norm() for reuse in ("fitted", "corrected"))
    assert corrected < 0.5 * plain


def test_a_sampler_that_begins_to_read_the_unconditional_stream_in_mid_run_begins_anew():
    """From there on the answers are those of a run without the earlier calls."""

    def run(x, begin):
        """(latent of call 5, answers from there on) of the calls from `begin` on."""
        predictions, found, at_5 = kept(), [], None
        for call, sigma in list(enumerate(SIGMAS[:-1].tolist()))[begin:]:
            guided, uncond = curved(x, sigma), curved(x, sigma) + 0.1 * field(6) * sigma**2
            following = SIGMAS[call + 1].item()
            at_5 = x if call == 5 else at_5
            if call in COMPUTED:
                answer = predictions.store(x, sigma, guided, uncond if call >= 5 else None)
            else:
                answer = predictions.predict(x, sigma, call >= 5)
            if call < 5:
                x = x + (following - sigma) * answer[0]
            else:
                found += answer
                x = x - sigma * answer[0] + following * answer[1]
        return at_5, found

    at_5, answers = run(field(1), 0)
    torch.testing.assert_close(answers, run(at_5, 5)[1])


@pytest.mark.parametrize("space", [FLOW, VARIANCE_EXPLODING, VARIANCE_PRESERVING])
def test_derivatives_convert_to_denoised_and_back(space):
    def v_prediction(sigma):  # any parametrization
        return 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1).sqrt()

    model = Parametrization(v_prediction, space).in_derivatives()
    x, denoised, sigma = field(1), field(2), torch.tensor(0.7, dtype=torch.float64)
    scale = (1 + 0.7**2) ** 0.5 if space == VARIANCE_PRESERVING else 1.0
    d = model.prediction(x, sigma, denoised)
    torch.testing.assert_close(d, (scale * x - denoised) / 0.7)
    torch.testing.assert_close(model.denoised(x, sigma, d)[0], denoised)
    torch.testing.assert_close(model.position(x, sigma), scale * x)


def test_a_model_whose_input_is_not_noise_plus_data_is_not_corrected():
    model = Parametrization(FLOW_MODEL.affine, None)
    assert model.in_derivatives() is None
    run = CachedRun(LFCacheConfig(alpha=100.0, reuse="corrected", trial="plain"), None, model, 20)
    x = field(0).float()
    for sigma in SIGMAS[:-1].float():
        run.denoised(x, sigma, lambda: x * 0.5, lambda small, level: small * 0.5)
    report = run.report()
    assert report["reused"] > 0 and not any(report["corrections"])


def test_the_window_ends_with_a_correction():
    """The first call after end_percent is computed, and puts right what the reused calls in the window did."""
    run = CachedRun(
        LFCacheConfig(alpha=100.0, reuse="corrected"), None, FLOW_MODEL, 20, sigma_window=(10.0, SIGMAS[10].item())
    )
    x = field(1).float()
    for sigma, following in zip(SIGMAS[:-1].float(), SIGMAS[1:].float()):
        denoised = run.denoised(
            x, sigma, lambda: x - sigma * curved(None, sigma).float(), lambda small, level: small * 0.5
        )
        x = x + (x - denoised) / sigma * (following - sigma)
    report = run.report()
    assert report["decisions"] == "CCC" + "R" * 8 + "C" * 9
    found = [c or 0.0 for c in report["corrections"]]
    assert max(found) == found[11] > 0 and not any(found[:11]) and found[19] < 0.2 * found[11]


def test_reused_calls_before_a_boundary_are_not_judged_by_what_follows():
    """The prompt changes: interpolating across it would take the new prompt's derivative for the old one's."""
    run = CachedRun(LFCacheConfig(alpha=100.0, reuse="corrected"), None, FLOW_MODEL, 20)
    run.lfcache.boundaries = [SIGMAS[8].item() - 1e-4]
    x = field(1).float()
    for call, (sigma, following) in enumerate(zip(SIGMAS[:-1].float(), SIGMAS[1:].float())):
        change = 10.0 if call > 8 else 0.0
        denoised = run.denoised(
            x, sigma, lambda: x - sigma * (curved(None, sigma) + change).float(), lambda small, level: small * 0.5
        )
        x = x + (x - denoised) / sigma * (following - sigma)
    report = run.report()
    assert report["decisions"][8:10] == "RC" and report["corrections"][9] is None


def test_multi_step_samplers_are_told_by_their_moves_and_lose_more_of_the_displacement():
    """Adams-Bashforth of order two; what is kept of the computed call shows theta."""
    history = []

    def move(x, d, sigma, following):
        history.append(d)
        slope = (history[-1] - history[-2]) if len(history) > 1 else torch.zeros_like(d)
        return x + (following - sigma) * (d + 0.5 * slope)

    for how, theta in ((None, 0.5), (move, 0.75)):
        predictions = kept()
        sample(predictions, curved, computed=(0, 1, 2, 6), sigmas=SIGMAS[:8], move=how)
        e, sigma = predictions.corrector.displacement, SIGMAS[6].item()
        assert predictions.corrector.trust == 1 and e.norm() > 1e-3
        torch.testing.assert_close(
            curved(None, sigma) - predictions.guided.current, theta * e / sigma, rtol=1e-4, atol=1e-6
        )
