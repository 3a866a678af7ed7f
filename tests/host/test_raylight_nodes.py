"""The nodes for Raylight, their driver side with stand-ins for workers; neither Raylight nor ray is needed."""

import asyncio
import importlib.util
import pickle
import sys

import pytest
from PreciseCache.nodes.extension import PreciseCacheExtension
from PreciseCache.nodes.host import workers
from PreciseCache.nodes.host.attachment import attached
from PreciseCache.nodes.host.worker_side import ranks_together
from PreciseCache.nodes.raylight import PreciseCacheBlockCacheRay, PreciseCacheLFCacheRay, PreciseCacheStatsRay
from PreciseCache.precisecache_core.blockcache.config import BlockCacheConfig
from PreciseCache.precisecache_core.lfcache.config import LFCacheConfig

from testkit.tiny_host import ROOT

NODES = {
    PreciseCacheLFCacheRay: dict(preset="base", alpha=0.5, share=0.4),
    PreciseCacheBlockCacheRay: dict(mode="on", cache_rate=0.4, reuse_steps=3),
    PreciseCacheStatsRay: dict(samples={"samples": None}),
}


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_there_and_says_what_to_install(node, monkeypatch):
    assert node in asyncio.run(PreciseCacheExtension().get_node_list())
    monkeypatch.setitem(sys.modules, "ray", None)  # an import of it fails, as where it is not installed
    with pytest.raises(ValueError, match=r"needs Raylight.*Install Raylight \(https://github.com/komikndr/raylight\)"):
        node.execute(ray_actors={"workers": []}, **NODES[node])


def test_the_pack_does_not_import_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    name = "pack_without_ray"  # of its own, so that every module is imported anew
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, pack)
    try:
        spec.loader.exec_module(pack)
        nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
        assert f"{name}.nodes.host.worker_side" in sys.modules and {"PreciseCacheLFCacheRay"} < {
            node.__name__ for node in nodes
        }
    finally:
        for module in [module for module in sys.modules if module.startswith(f"{name}.")]:
            del sys.modules[module]


def xdit(**degrees):
    return dict(is_xdit=True, is_fsdp=False, **{f"{name}_degree": degree for name, degree in degrees.items()})


@pytest.mark.parametrize(
    "layout, groups",
    [
        (xdit(ulysses=2, ring=1, cfg=1), ["01"]),
        (xdit(ulysses=1, ring=2, cfg=1), ["01"]),
        (xdit(ulysses=1, ring=1, cfg=2), ["01"]),
        (xdit(ulysses=2, ring=1, cfg=2), ["0123"]),
        (xdit(ulysses=2, ring=2, cfg=2), ["01234567"]),
        # data parallelism: each replica has a latent of its own
        (xdit(ulysses=1, ring=1, cfg=1, dp=2), ["0", "1"]),
        (xdit(ulysses=2, ring=1, cfg=1, dp=2), ["01", "23"]),
        (xdit(ulysses=1, ring=1, cfg=2, dp=3), ["01", "23", "45"]),
        (dict(is_xdit=False, is_fsdp=False), ["0", "1"]),
        # divided weights are gathered by all ranks at once; Raylight makes a process group for each replica
        (dict(is_xdit=False, is_fsdp=True), ["01"]),
        ({**xdit(ulysses=2, ring=1, cfg=1), "is_fsdp": True}, ["01"]),
        ({**xdit(ulysses=1, ring=1, cfg=1, dp=2), "is_fsdp": True, "use_group_process_group": True}, ["01"]),
        ({**xdit(ulysses=0, ring=0, cfg=0)}, ["0", "1"]),
    ],
    ids=str,
)
def test_ranks_that_sample_one_latent(layout, groups):
    size = sum(map(len, groups))
    for group in groups:
        ranks = tuple(map(int, group))
        assert [ranks_together(layout, rank, size) for rank in ranks] == [ranks] * len(ranks)


class Actor:
    """A worker's handle that records what it is told. fails: its arguments cannot be sent."""

    def __init__(self, told=None, fails=False):
        self.told = [] if told is None else told
        for name in (*workers.SAMPLING, "load_unet"):
            setattr(self, name, Method(self.told, name, fails))
        self.model_function_runner_get_values = Method(self.told, "tell")
        self.get_parallel_dict = Method(self.told, "layout")

    def __reduce__(self):
        return Actor, (self.told,)

    def __copy__(self):
        return Actor(self.told, self.common_ksampler.fails)


class Method:
    def __init__(self, told, name, fails=False, options=None):
        self.told, self.name, self.fails, self.given = told, name, fails, options

    def remote(self, *args, **kwargs):
        if self.name == "tell":
            self.told.append(args[2])  # of the function, the pack's folder, the name of what to call
            return args[2]
        if self.name == "layout":
            return dict(is_xdit=True, ulysses_degree=2)
        self.told.append((self.name, args, kwargs, self.given))
        if self.fails:
            raise RuntimeError("this cannot be sent")
        return f"reference to {self.name}"

    def options(self, **options):
        return Method(self.told, self.name, self.fails, options)


class Ray:
    """As the module ray, where every reference is the value itself."""

    @staticmethod
    def get(reference, timeout=None):
        return reference


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Ray)
    return Ray


def twin_of(actor):
    return workers.with_caches({"workers": [actor]}, "1", "LFCache base", lfcache=LFCacheConfig())["workers"][0]


@pytest.mark.parametrize("name", workers.SAMPLING)
def test_a_worker_is_told_before_and_after_it_samples(ray, name):
    actor = Actor()
    twin = twin_of(actor)
    assert getattr(twin, name).remote(1, cfg=2) == f"reference to {name}"
    assert actor.told == ["begin", (name, (1,), dict(cfg=2), None), "end"]
    del actor.told[:]
    assert getattr(twin, name).options(name="a").remote() == f"reference to {name}"
    assert actor.told == ["begin", (name, (), {}, dict(name="a")), "end"]


def test_other_methods_and_the_first_handle_are_left_alone(ray):
    actor = Actor()
    twin = twin_of(actor)
    twin.load_unet.remote("a file")
    actor.common_ksampler.remote(3)
    assert actor.told == [("load_unet", ("a file",), {}, None), ("common_ksampler", (3,), {}, None)]


def test_all_workers_are_told_of_a_run_that_one_cannot_be_asked_for(ray):
    actors = [Actor(), Actor(fails=True), Actor()]
    twins = workers.with_caches({"workers": actors}, "1", "LFCache base", lfcache=LFCacheConfig())["workers"]
    twins[0].common_ksampler.remote()
    with pytest.raises(RuntimeError, match="cannot be sent"):
        twins[1].common_ksampler.remote()
    told = [[entry if isinstance(entry, str) else entry[0] for entry in actor.told] for actor in actors]
    assert told == [*[["begin", "common_ksampler", "end"]] * 2, ["begin", "end"]]


def test_a_plan_is_left_out_of_what_is_sent_to_a_worker(ray):
    actors = workers.with_caches({"workers": [Actor()]}, "1", "LFCache base", lfcache=LFCacheConfig())
    assert workers.plan_of(actors) is not None
    assert workers.plan_of(pickle.loads(pickle.dumps(actors))) is None


def test_blockcache_that_is_off_stays_off_after_flash_in_either_order():
    blocks, off = BlockCacheConfig(), dict(blockcache=None)
    flash = dict(companion=blocks, lfcache=LFCacheConfig())
    for first, second in ((flash, off), (off, flash)):
        both = attached(attached(None, "1", **first), "2", **second)
        assert both.blockcache is None and both.lfcache is not None
    both = attached(attached(None, "1", blockcache=BlockCacheConfig(cache_rate=0.2)), "2", **flash)
    assert both.blockcache.cache_rate == 0.2
