"""Schedulers that are copied, shared or wrapped by others."""

import copy
import gc
import pickle
import weakref
from pipes import (
    alive,
    embeddings,
    wan,
)

import torch
from own import STEPS, entry_of, own_loop, own_pipe

from precisecache_core.pipelines.diffusers import apply_precisecache


def test_copies_of_the_scheduler_step_themselves():
    copies = []

    def call(pipe, x, t):
        if len(copies) < 2:
            copies.extend((copy.deepcopy(pipe.scheduler), pickle.loads(pickle.dumps(pipe.scheduler))))
        return pipe.transformer(x, t[None])

    pipe = own_pipe()
    with apply_precisecache(pipe):
        own_loop(pipe, call)
        index = pipe.scheduler.step_index
        for other in copies:
            x = embeddings(0, 1, 4, 8, 8)
            other.set_timesteps(5)
            other.step(x, other.timesteps[0], x)
            assert other.step_index == 1 and pipe.scheduler.step_index == index


def test_a_pipeline_that_copies_its_scheduler_in_each_run():
    """As LTX-2 does for its sound."""
    pipe = own_pipe(lambda x, t: (x * 0.5, x * 0.25))

    @torch.no_grad()
    def go():
        pipe.scheduler.set_timesteps(STEPS)
        second, (x, y) = copy.deepcopy(pipe.scheduler), (embeddings(0, 1, 4, 8, 8), embeddings(1, 1, 4, 8, 8))
        for t in pipe.scheduler.timesteps:
            a, b = pipe.transformer(x, t[None])
            x, y = pipe.scheduler.step(a, t, x).prev_sample, second.step(b, t, y).prev_sample
        return torch.cat((x, y))

    plain = go()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain) and torch.equal(go(), plain)
    assert any("more than one output" in line for line in entry_of(cache)["warnings"])


def test_a_loop_that_steps_another_scheduler_is_computed_and_keeps_few_outputs():
    pipe, outputs = own_pipe(), []

    def go():
        with torch.no_grad():
            pipe.scheduler.set_timesteps(20)
            scheduler, x = copy.deepcopy(pipe.scheduler), embeddings(0, 1, 4, 8, 8)
            for t in scheduler.timesteps:
                output = pipe.transformer(x, t[None])
                outputs.append(weakref.ref(output))
                x = scheduler.step(output, t, x).prev_sample
        return x

    plain = go()
    outputs.clear()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
        gc.collect()
        assert len(alive(outputs)) <= 1
    line = entry_of(cache)["warnings"][-1]
    assert line.startswith("the transformer was called 9 times without a step of the scheduler")


def test_a_copy_of_all_that_a_scheduler_holds():
    """As the panorama pipeline makes one for each view."""
    pipe = own_pipe()
    with apply_precisecache(pipe):
        held = copy.deepcopy(vars(pipe.scheduler))
        vars(pipe.scheduler).update(held)
        own_loop(pipe)
        assert pipe.scheduler.step_index == STEPS
    assert "step" not in vars(pipe.scheduler)


def test_two_pipelines_on_one_scheduler():
    first, go_first = wan()
    second, go_second = wan(scheduler=first.scheduler)
    a, b = apply_precisecache(first), apply_precisecache(second)
    go_first()
    go_second()
    a.remove()
    go_second()
    assert [entry["reused"] > 0 for entry in b.report()["runs"]] == [True, True]
    b.remove()
    assert "step" not in vars(first.scheduler)


def test_another_wrapper_of_the_step_is_kept():
    pipe, go = wan()
    original, seen = pipe.scheduler.step, []

    def theirs(model_output, timestep, sample, **kwargs):
        seen.append(timestep)
        return original(model_output, timestep, sample, **kwargs)

    pipe.scheduler.step = theirs
    with apply_precisecache(pipe) as cache:
        go()
    assert vars(pipe.scheduler)["step"] is theirs
    assert len(seen) == STEPS and entry_of(cache)["reused"]


def test_a_wrapper_of_the_step_that_takes_anything():
    pipe, go = wan()
    original = pipe.scheduler.step
    pipe.scheduler.step = lambda *args, **kwargs: original(*args, **kwargs)
    with apply_precisecache(pipe) as cache:
        go()
    assert entry_of(cache)["reused"] and entry_of(cache)["trials"] == STEPS


def test_a_wrapper_of_the_step_that_comes_later_is_kept():
    pipe, go = wan()
    plain, seen = go(), []
    cache = apply_precisecache(pipe)
    ours = pipe.scheduler.step

    def theirs(model_output, timestep, sample, **kwargs):
        seen.append(timestep)
        return ours(model_output, timestep, sample, **kwargs)

    pipe.scheduler.step = theirs
    go()
    cache.remove()
    assert torch.equal(go(), plain) and len(seen) == 2 * STEPS
    assert len(cache.report()["runs"]) == 1 and entry_of(cache)["reused"]
