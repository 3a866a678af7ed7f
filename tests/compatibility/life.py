"""What happens to a graph in use: errors, interrupts, repeats, several runs at once."""

import threading
from unittest import mock

import comfy.model_management
import comfy.sample
import torch
from comfy.patcher_extension import WrappersMP
from PreciseCache.nodes.host.tiny_model import load_model
from PreciseCache.nodes.host.trials import TRIAL_FLAG
from PreciseCache.precisecache_core.lfcache.predictions import Predictions

from compatibility.cell import Attached, Case, left_behind
from compatibility.conditioning import architecture
from compatibility.stock import stock
from testkit.architectures import conditioning

STEPS = 12
SAME = "as without the pack"
LESS = "the run goes on"
BOTH = {"alpha": 1.0}, {}


def flash(bench, model=None):
    """The tiny model with both caches."""
    return Attached(bench, *BOTH)(model or bench.model)


def spoil(model, calls, answer, is_trial=False):
    """A clone whose network returns `answer(result)` in these calls, counted over its computed calls or its trials."""
    model = model.clone()
    count = [0]

    def network(executor, x, *args, **kwargs):
        options = next((a for a in (kwargs.get("transformer_options"), *args) if isinstance(a, dict)), {})
        result = executor(x, *args, **kwargs)
        if bool(options.get(TRIAL_FLAG)) == is_trial:
            count[0] += 1
            if count[0] - 1 in calls:
                return answer(result)
        return result

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spoil", network)
    return model


def raising(error):
    def answer(result):
        raise error("simulated")

    return answer


def fails(error):
    """At every call, the error passes through and leaves nothing behind, and the next run is unchanged."""

    def examine(bench):
        bare = bench.sample(bench.model, steps=STEPS)
        fresh = bench.sample(flash(bench), steps=STEPS)
        keep = flash(bench)
        bench.sample(keep, steps=STEPS)
        calls = bench.report(keep)["computed"]
        for call in range(calls):
            model = spoil(keep, {call}, raising(error))
            try:
                bench.sample(model, steps=STEPS)
            except error:
                pass
            else:
                raise AssertionError(f"the error of call {call} was swallowed")
            assert bench.report(model)["computed"] == call
            del model
            assert left_behind(bench) == [], f"after call {call}"
        assert torch.equal(bench.sample(keep, steps=STEPS), fresh)
        assert torch.equal(bench.sample(bench.model, steps=STEPS), bare)

    return examine


def interrupted_in_trials(bench):
    """An interrupt that arrives in a trial is an interrupt, not a trial that failed."""
    interrupt = comfy.model_management.InterruptProcessingException
    for call in range(6):
        model = spoil(flash(bench), {call}, raising(interrupt), is_trial=True)
        try:
            bench.sample(model, steps=STEPS)
        except interrupt:
            continue
        raise AssertionError(f"the interrupt in trial {call} was swallowed")


def not_finite(value):
    """The model's answer is not finite at a call of the warm-up or after it: the run goes on to its last step."""

    def examine(bench):
        for call in (0, 2, 3):
            model = spoil(flash(bench), {call}, lambda result: result * value)
            bench.sample(model, steps=STEPS)
            decisions = bench.report(model)["decisions"]
            spoilt = [i for i, letter in enumerate(decisions) if letter == "C"][call]
            # from then on no change can be measured, so nothing is reused any more
            assert len(decisions) == STEPS and "R" not in decisions[spoilt + 1 :]

    return examine


def spoilt_trials(calls, answer, is_extrapolated):
    def examine(bench):
        model = spoil(flash(bench), calls, answer, is_trial=True)
        assert torch.isfinite(bench.sample(model, steps=STEPS)).all()
        run = bench.report(model)
        assert run["reused"] > 0 and run["warnings"]
        assert any("without trials" in text for text in run["warnings"]) == is_extrapolated

    return examine


def no_memory(method, says):
    """There is no memory for LFCache's predictions: it stands aside, and the run is computed to its end."""

    def examine(bench):
        model = bench.lfcache(alpha=1.0)

        def fail(*args, **kwargs):
            raise torch.cuda.OutOfMemoryError("simulated")

        with mock.patch.object(Predictions, method, fail):
            latent = bench.sample(model, steps=STEPS)
        run = bench.report(model)
        assert torch.equal(latent, bench.sample(bench.model, steps=STEPS)) == (run["reused"] == 0)
        assert torch.isfinite(latent).all() and says in " ".join(run["warnings"])

    return examine


def queued_twice(bench):
    model = flash(bench)
    assert torch.equal(bench.sample(model, steps=STEPS), bench.sample(model, steps=STEPS))
    first, second = bench.reports.runs_of(bench.attachment.attachment_of(model).id)[-2:]
    assert first["decisions"] == second["decisions"] and first["lfd"] == second["lfd"]


def changed_and_removed(bench):
    """A widget changes, then the node is removed: earlier settings have no effect."""
    bare = bench.sample(bench.model, steps=STEPS)
    eager = bench.sample(bench.lfcache(alpha=1.0), steps=STEPS)
    assert torch.equal(bench.sample(bench.lfcache(alpha=0.0), steps=STEPS), bare)
    assert torch.equal(bench.sample(bench.lfcache(alpha=1.0), steps=STEPS), eager) and not torch.equal(eager, bare)
    assert torch.equal(bench.sample(bench.model, steps=STEPS), bare)


def in_turns(bench):
    """Two models sampled in turns give the latents that each gives alone."""
    models = [flash(bench), flash(bench, bench.shifted(3.0))]
    alone = [bench.sample(model, steps=STEPS, seed=1) for model in models]
    for _ in range(2):
        for model, latent in zip(models, alone):
            assert torch.equal(bench.sample(model, steps=STEPS, seed=1), latent)


def at_once(bench):
    """Two runs in two threads, each with weights of its own, give the latents that each gives alone."""
    models = [flash(bench, load_model()) for _ in range(2)]
    noises = [bench.noise(seed=seed) for seed in (1, 2)]
    alone = [bench.sample(model, steps=STEPS, noise=noise) for model, noise in zip(models, noises)]
    together, errors = [None, None], []

    def work(i):
        try:
            with torch.inference_mode():
                together[i] = bench.sample(models[i], steps=STEPS, noise=noises[i])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert all(map(torch.equal, alone, together))


def grows(bench):
    """A sampler enlarges the latent in mid-run: the warm-up starts again."""
    name = "flux"
    model = bench.lfcache(architecture(name), alpha=10.0)
    sampler = stock(
        "comfy_extras.nodes_advanced_samplers",
        "SamplerLCMUpscale",
        scale_ratio=2.0,
        scale_steps=8,
        upscale_method="bilinear",
    )
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    sigmas = stock(
        "comfy_extras.nodes_custom_sampler", "BasicScheduler", model=model, scheduler="simple", steps=16, denoise=1.0
    )

    def run(model):
        torch.manual_seed(0)  # this sampler draws its noise from the global generator
        return comfy.sample.sample_custom(
            model,
            noise,
            3.0,
            sampler,
            sigmas,
            conditioning(name, 1),
            conditioning(name, 2),
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=0,
        )

    assert torch.isfinite(run(model)).all() and run(model).shape[-1] == 16
    report = bench.report(model)
    assert any("latent changed" in text for text in report["warnings"]) and len(report["decisions"]) == 16
    assert torch.equal(run(bench.lfcache(architecture(name), alpha=0.0)), run(architecture(name)))


def cells():
    def case(name, examine, verdict, says=""):
        return Case("Life", name, examine, verdict, says)

    interrupted = comfy.model_management.InterruptProcessingException
    oom = torch.cuda.OutOfMemoryError
    untried = "reuse goes on without trials"
    return [
        case("queued twice", queued_twice, "the same latent and report twice"),
        case("a widget changed, the node removed", changed_and_removed, SAME),
        case("interrupted at every call", fails(interrupted), "ends, nothing stays"),
        case("interrupted in a trial", interrupted_in_trials, "ends, nothing stays"),
        case("the model fails at every call", fails(RuntimeError), "ends with the model's error, nothing stays"),
        case("out of memory in the model at every call", fails(oom), "ends with the model's error, nothing stays"),
        case("NaN from the model", not_finite(float("nan")), LESS),
        case("Inf from the model", not_finite(float("inf")), LESS),
        case(
            "NaN from one trial",
            spoilt_trials({4}, lambda r: r * float("nan"), False),
            "that call is computed",
            "was not finite",
        ),
        case(
            "Inf from every trial",
            spoilt_trials(set(range(99)), lambda r: r * float("inf"), True),
            untried,
            "not finite",
        ),
        case("an error in a trial", spoilt_trials({4}, raising(RuntimeError), True), untried, "the trial failed"),
        case("out of memory in a trial", spoilt_trials({4}, raising(oom), True), untried, "the trial failed"),
        case(
            "no memory to keep a prediction",
            no_memory("store", "no memory for a prediction"),
            "every call is computed",
            "no memory",
        ),
        case(
            "no memory to reuse a prediction",
            no_memory("predict", "no memory to reuse"),
            "every call is computed",
            "no memory",
        ),
        case("the latent grows in mid-run", grows, "the warm-up starts again", "the latent changed"),
        case("two models by turns", in_turns, "each as alone"),
        case("two threads", at_once, "each as alone"),
    ]
