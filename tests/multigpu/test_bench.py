"""Raylight without a cache samples what the host samples alone, in every topology: what the other tests build on."""

import psutil
import pytest

from testkit.model_files import RANDOM, TINY, difference
from testkit.ray_session import Topology
from testkit.raylight_bench import RayBench

ULYSSES = Topology(ulysses=2)
TOPOLOGIES = [
    ULYSSES,
    Topology(ring=2),
    Topology(cfg=2),
    Topology(gpus=4, ulysses=2, cfg=2),
    Topology(gpus=4, ulysses=2, ring=2),
    Topology(ulysses=2, fsdp=True),
]


@pytest.mark.parametrize("pool", TOPOLOGIES, indirect=True, ids=str)
def test_the_tiny_model_in_every_topology(pool, model_files, plain):
    actors = pool.load(model_files[TINY])
    assert difference(pool.sample(actors, model_files[TINY]), plain(TINY)) < 3e-5


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_every_architecture_in_shards(pool, name, model_files, plain):
    actors = pool.load(model_files[name])
    assert difference(pool.sample(actors, model_files[name]), plain(name)) < 5e-6


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_the_custom_sampler_gives_the_same(pool, model_files, plain):
    actors = pool.load(model_files[TINY])
    assert difference(pool.sample_custom(actors, model_files[TINY]), plain(TINY)) < 3e-5


@pytest.mark.parametrize("pool", [ULYSSES], indirect=True, ids=str)
def test_a_rank_that_waits_for_the_others_in_vain_gives_up(pool):
    import ray

    def one_alone(worker):
        import torch

        group = torch.distributed.new_group([0, 1])  # of its own, because it is broken afterwards
        if worker.local_rank == 0:
            torch.distributed.all_reduce(torch.zeros(1), group=group)

    with pytest.raises(ray.exceptions.RayTaskError, match="Timed out|Connection closed"):
        pool.on_every_worker(one_alone)


def test_no_process_is_left_behind_after_an_error():
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ValueError, match="GPU count must be divisible"), RayBench(gpus=3, ulysses=2):
        pass
    with pytest.raises(ZeroDivisionError), RayBench(gpus=2, ulysses=2):
        1 / 0  # noqa: B018
    assert set(psutil.Process().children(recursive=True)) == before
