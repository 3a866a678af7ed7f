"""Beside torch.compile, offloading, guiders and the caches of diffusers."""

from pipes import GUIDANCE, STEPS, alive, cogvideox_image, embeddings, euler, inputs_of, small_wan, wan
from types import SimpleNamespace

import pytest
import torch
from own import entry_of
from undescribed import ltx, stable_diffusion

from precisecache_core import BlockCacheConfig
from precisecache_core.pipelines.diffusers import apply_precisecache

BLOCKS = BlockCacheConfig(warmup=2, start_percent=0.0)


def decisions_without(make, preset="base", **options):
    pipe, go = make()
    with apply_precisecache(pipe, preset, **options) as cache:
        latent = go()
    return entry_of(cache)["decisions"], latent


# --- guidance ---


@pytest.fixture
def modular():
    modular_pipelines = pytest.importorskip("diffusers.modular_pipelines", reason="this diffusers has no modular Wan")

    def make(guider, transformer=None):
        blocks = modular_pipelines.WanBlocks()
        for name in ("text_encoder", "decode"):
            blocks.sub_blocks.pop(name)
        pipe = blocks.init_pipeline()
        pipe.update_components(transformer=transformer or small_wan(), scheduler=euler(), guider=guider)
        pipe.set_progress_bar_config(disable=True)

        def go():
            return pipe(
                latents=embeddings(0, 1, 4, 3, 8, 8),
                prompt_embeds=embeddings(1, 1, 4, 8),
                negative_prompt_embeds=embeddings(2, 1, 4, 8),
                height=64,
                width=64,
                num_frames=9,
                num_inference_steps=STEPS,
                output="latents",
            )

        return pipe, go

    return make


def test_a_modular_pipeline_is_cached_with_trials(modular):
    from diffusers.guiders import ClassifierFreeGuidance

    pipe, go = modular(ClassifierFreeGuidance(guidance_scale=GUIDANCE))
    plain = go()
    seen = []
    inputs_of(pipe.transformer, seen)
    with apply_precisecache(pipe) as cache:
        latent = go()
        assert len(seen) > STEPS and not alive(seen)  # though this pipeline does not tell its end
    assert entry_of(cache)["reused"] and entry_of(cache)["trials"] == STEPS and entry_of(cache)["warnings"] == []
    decisions, of_pipeline = decisions_without(wan)
    assert entry_of(cache)["decisions"] == decisions and torch.allclose(latent, of_pipeline, atol=1e-4)
    assert torch.equal(go(), plain)


def test_guidance_that_is_no_sum_makes_the_caches_stand_aside(modular):
    from diffusers.guiders import AdaptiveProjectedGuidance

    pipe, go = modular(AdaptiveProjectedGuidance(guidance_scale=GUIDANCE, adaptive_projected_guidance_momentum=-0.5))
    plain = go()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
    assert entry_of(cache)["standing_aside"] == ["lfcache"]
    (line,) = entry_of(cache)["warnings"]
    assert line == ("the guidance is not a sum of its branches with weights that add up to one: computing every call")


def test_a_pipeline_that_rescales_its_guidance_is_computed():
    pipe, go = ltx(rescale=0.7)
    plain = go()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
        go(guidance_rescale=0.0)
    assert entry_of(cache, 0)["standing_aside"] == ["lfcache"] and "not a sum" in entry_of(cache, 0)["warnings"][-1]
    assert entry_of(cache, 1)["standing_aside"] == [] and entry_of(cache, 1)["reused"]


# --- torch.compile ---


@pytest.fixture
def _no_compiled_code_is_left():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(pipe, how):
    if how == "module":
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    elif how == "in place":
        pipe.transformer.compile(backend="eager", fullgraph=True)
    else:
        pipe.transformer.compile_repeated_blocks(backend="eager", fullgraph=True)


def shallow():
    """Compiling takes time."""
    return wan(transformer=small_wan(layers=1))


@pytest.mark.usefixtures("_no_compiled_code_is_left")
@pytest.mark.parametrize("how, has_run", [("module", False), ("module", True), ("in place", True), ("blocks", False)])
def test_a_compiled_transformer_is_cached(how, has_run):
    """has_run: diffusers keeps a registry of hooks on the module from its first run on."""
    decisions, expected = decisions_without(shallow)
    pipe, go = shallow()
    if has_run:
        go()
    compiled(pipe, how)
    plain, before = go(), sorted(vars(pipe.transformer))
    with apply_precisecache(pipe) as cache:
        with pytest.raises(ValueError, match="has caches already"):
            apply_precisecache(pipe)
        latent = go()
    assert entry_of(cache)["decisions"] == decisions and torch.allclose(latent, expected, atol=1e-5)
    assert entry_of(cache)["model"] == "WanTransformer3DModel" and entry_of(cache)["warnings"] == []
    assert sorted(vars(pipe.transformer)) == before and torch.equal(go(), plain)
    with apply_precisecache(pipe, "custom", alpha=0.0) as cache:
        assert torch.equal(go(), plain)
    assert entry_of(cache)["trials"] == STEPS


@pytest.mark.usefixtures("_no_compiled_code_is_left")
def test_blocks_that_are_compiled_one_by_one_are_skipped():
    _, expected = decisions_without(wan, "off", blockcache=BLOCKS)
    pipe, go = wan()
    compiled(pipe, "blocks")
    plain = go()
    impl = [vars(block)["_compiled_call_impl"] for block in pipe.transformer.blocks]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with apply_precisecache(pipe, "off", blockcache=BLOCKS) as cache:
        latent = go()
    assert entry_of(cache)["blockcache"]["block_calls_skipped"] and torch.allclose(latent, expected, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs  # nothing was compiled again
    assert [vars(block)["_compiled_call_impl"] for block in pipe.transformer.blocks] == impl
    assert not [block for block in pipe.transformer.blocks if "forward" in vars(block)]
    assert torch.equal(go(), plain)


@pytest.mark.usefixtures("_no_compiled_code_is_left")
@pytest.mark.parametrize("how", ["module", "in place"])
def test_blocks_inside_of_compiled_code_are_computed_and_one_line_says_so(how):
    pipe, go = shallow()
    compiled(pipe, how)
    plain = go()
    with apply_precisecache(pipe, "off", blockcache=BLOCKS) as cache:
        assert torch.equal(go(), plain)
    assert entry_of(cache)["standing_aside"] == ["blockcache"]
    assert "compiled as one, use compile_repeated_blocks()" in entry_of(cache)["warnings"][0]


@pytest.mark.usefixtures("_no_compiled_code_is_left")
@pytest.mark.parametrize("how", ["module", "blocks"])
def test_compiling_after_apply_is_right_too(how):
    decisions, expected = decisions_without(shallow)
    pipe, go = shallow()
    with apply_precisecache(pipe) as cache:
        compiled(pipe, how)
        assert torch.allclose(go(), expected, atol=1e-5)
    assert entry_of(cache)["decisions"] == decisions
    lines = ["the transformer was compiled after the caches were applied, so it runs uncompiled: compile it first"]
    assert entry_of(cache)["warnings"] == (lines if how == "module" else [])


# --- offloading ---


def offload(pipe, kind):
    """Accelerate's hooks from CPU to CPU, so that nothing moves.

    Where there is no accelerator, enable_sequential_cpu_offload itself fails with or without our caches, so its hooks
    are put on one by one, as it does.
    """
    if kind == "model":
        return pipe.enable_model_cpu_offload(device="cpu")
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for module in pipe.transformer.modules():
        if not list(module.children()):
            add_hook_to_module(module, AlignDevicesHook(torch.device("cpu")), append=True)
    add_hook_to_module(pipe.transformer, AlignDevicesHook(io_same_device=True), append=True)


@pytest.mark.parametrize(
    "kind, order, preset",
    [
        ("model", "before", "base"),
        ("model", "before", "flash"),
        ("model", "after", "flash"),
        ("sequential", "before", "flash"),
        ("sequential", "after", "flash"),
    ],
)
def test_an_offloaded_pipeline_is_cached_in_every_run(kind, order, preset):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    decisions, expected = decisions_without(wan, preset)
    pipe, go = wan()
    plain = go()
    if order == "before":
        offload(pipe, kind)
    with apply_precisecache(pipe, preset) as cache:
        if order == "after":
            offload(pipe, kind)
        for _ in range(3):
            assert torch.equal(go(), expected)
        assert [entry["decisions"] for entry in cache.report()["runs"]] == [decisions] * 3
    assert hasattr(pipe.transformer, "_hf_hook")  # the offloading is still there
    for _ in range(2):
        assert torch.equal(go(), plain)
    assert len(cache.report()["runs"]) == 3
    pipe.remove_all_hooks()
    assert torch.equal(go(), plain)


def test_offloading_may_end_before_the_caches():
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    pipe, go = wan()
    plain = go()
    offload(pipe, "model")
    cache = apply_precisecache(pipe)
    first = go()
    pipe.remove_all_hooks()
    assert torch.equal(go(), first) and not torch.equal(first, plain)
    cache.remove()
    assert torch.equal(go(), plain) and "forward" not in vars(pipe.transformer)


def test_group_offloading_beside_the_caches():
    from diffusers.hooks import apply_group_offloading

    pipe, go = wan()
    plain = go()
    cache = apply_precisecache(pipe)
    apply_group_offloading(
        pipe.transformer, torch.device("cpu"), torch.device("cpu"), "block_level", num_blocks_per_group=1
    )
    go()
    assert entry_of(cache)["reused"] and entry_of(cache)["trials"] == 0  # each would copy all weights
    assert "which makes trials slow: reuse is planned without trials" in entry_of(cache)["warnings"][0]
    cache.remove()
    assert torch.equal(go(), plain) and len(cache.report()["runs"]) == 1


# --- other caches, other pipelines ---


def test_with_a_cache_of_diffusers_both_of_ours_stand_aside():
    from diffusers import FirstBlockCacheConfig

    pipe, go = wan()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    plain = go()
    with apply_precisecache(pipe, "flash") as cache:
        assert torch.equal(go(), plain)
    assert entry_of(cache)["standing_aside"] == ["lfcache", "blockcache"]
    assert all("a cache of diffusers is on (enable_cache)" in line for line in entry_of(cache)["warnings"])
    pipe.transformer.disable_cache()
    with apply_precisecache(pipe) as cache:
        go()
    assert entry_of(cache)["reused"]


def test_channels_that_nobody_described_make_the_caches_stand_aside():
    pipe, go = cogvideox_image()
    plain = go()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
    assert entry_of(cache)["standing_aside"] == ["lfcache"] and entry_of(cache)["calls"] == STEPS
    assert "the transformer's output has another shape than its latent" in entry_of(cache)["warnings"][-1]


@pytest.mark.parametrize(
    "kind", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_a_unet_is_cached_without_trials(kind):
    pipe, go = stable_diffusion(kind)
    plain = go()
    with apply_precisecache(pipe, "custom", alpha=0.0):
        assert torch.equal(go(), plain)
    with apply_precisecache(pipe) as cache:
        latent = go()
    entry = entry_of(cache)
    assert entry["reused"] and entry["trials"] == 0 and 0 < (latent - plain).norm() < plain.norm()
    assert "StableDiffusionPipeline is not known well enough" in entry["warnings"][0]
    assert entry["latent_shape"] == [1, 4, 8, 8]


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_says_too_little_makes_the_caches_stand_aside():
    pipe, go = stable_diffusion("EDMEulerScheduler")
    plain = go()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
    assert entry_of(cache)["standing_aside"] == ["lfcache"]
    assert "the noise levels of EDMEulerScheduler are not known" in entry_of(cache)["warnings"][0]


class TwoOutputs(torch.nn.Module):
    """As the transformers of video with sound."""

    def forward(self, hidden_states, timestep):
        return hidden_states * 0.5, timestep


def test_a_transformer_with_two_outputs_is_computed():
    pipe = SimpleNamespace(scheduler=euler(), transformer=TwoOutputs())

    def go():
        x = embeddings(0, 1, 4, 8, 8)
        pipe.scheduler.set_timesteps(STEPS)
        for t in pipe.scheduler.timesteps:
            output, sound = pipe.transformer(x, timestep=t[None])
            assert torch.equal(sound, t[None])
            x = pipe.scheduler.step(output, t, x).prev_sample
        return x

    plain = go()
    with apply_precisecache(pipe) as cache:
        assert torch.equal(go(), plain)
    assert "the transformer has more than one output" in entry_of(cache)["warnings"][-1]
    assert entry_of(cache)["calls"] == STEPS
