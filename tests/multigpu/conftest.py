"""Sampling on several GPUs with Raylight, whose actors run here in CPU processes.

The folder is not named raylight, because pytest would then give that name to the folder's modules.
"""

from functools import cache

import pytest
import torch

from testkit.model_files import ModelFiles, load_plainly, sample_plainly
from testkit.raylight_bench import RayBench
from testkit.raylight_caches import cached_plainly
from testkit.raylight_on_cpu import why_missing
from testkit.tiny_host import enter_host, find_host

enter_host(find_host())


def pytest_collection_modifyitems(items):
    """Skip these tests without Raylight; else those of one topology run together, as each starts its actors once."""
    mine = [index for index, item in enumerate(items) if item.path.parent.name == "multigpu"]
    missing = why_missing()
    if missing:
        for index in mine:
            items[index].add_marker(pytest.mark.skip(reason=missing))
    ordered = sorted((items[index] for index in mine), key=_topology)
    for index, item in zip(mine, ordered, strict=True):
        items[index] = item


def _topology(item):
    pool = getattr(item, "callspec", None) and item.callspec.params.get("pool")
    return (pool is not None, str(pool))


class Pools:
    """The actors of one topology at a time, kept until another is asked for."""

    def __init__(self):
        self.bench = None

    def get(self, topology):
        if self.bench and self.bench.topology != topology:
            self.close()
        if not self.bench:
            self.bench = RayBench(**vars(topology)).__enter__()
        return self.bench

    def close(self):
        if self.bench:
            self.bench.__exit__()
        self.bench = None


@pytest.fixture(scope="session")
def _pools():
    torch.set_grad_enabled(False)
    pools = Pools()
    yield pools
    pools.close()


@pytest.fixture
def pool(request, _pools):
    """The RayBench of the `Topology` in `parametrize("pool", [Topology(…)], indirect=True)`."""
    return _pools.get(request.param)


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    return ModelFiles(tmp_path_factory.mktemp("diffusion_models"))


@pytest.fixture(scope="session")
def plain(model_files):
    """plain(name, **how): what the host alone samples with a model, for `how` see `sample_plainly`."""

    @cache
    def sample(name, **how):
        return sample_plainly(load_plainly(model_files[name]), model_files[name], **how)

    return sample


@pytest.fixture(scope="session")
def cached(model_files):
    """cached(name, caches, **how): (latent, report entry) of the host alone with our nodes; see `cached_plainly`."""
    found = {}

    def sample(name, caches, **how):
        key = repr((name, caches, sorted(how.items())))
        if key not in found:
            found[key] = cached_plainly(model_files[name], caches, **how)
        return found[key]

    return sample
