"""The bundled model in the stock nodes (loader, VAE decode, tiled decode, encode) and in the pack's own."""

import json
import shutil

import folder_paths
import pytest
import torch
from PreciseCache.nodes.stats import PreciseCacheStats
from PreciseCache.nodes.tiny_model import PreciseCacheTinyModel
from PreciseCache.precisecache_core.tiny import bundle


@pytest.fixture(scope="module")
def stock():
    import nodes

    return nodes


def test_our_network_is_the_hosts_network(bench):
    own = bundle.load_model()
    host = bench.model.model.diffusion_model
    x, t = torch.randn(2, 16, 3, 9, 10), torch.tensor([500.0, 30.0])
    context = torch.cat((bench.positive[0][0], bench.negative[0][0]))
    theirs = host(x, t, context)
    assert (own(x, t, context) - theirs).abs().max() <= 2e-5 * theirs.abs().max()


def test_the_stock_loader_loads_the_file(bench, stock, tmp_path, monkeypatch):
    import inspect

    import comfy.sd

    if "metadata" not in inspect.signature(comfy.sd.load_diffusion_model_state_dict).parameters:
        pytest.skip("this host's Load Diffusion Model does not read sizes from the file's metadata")
    shutil.copy(bundle.MODEL_FILE, tmp_path)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(tmp_path)], {".safetensors"}))
    (loaded,) = stock.UNETLoader().load_unet(bundle.MODEL_FILE.name, "default")
    x, t = torch.randn(1, 16, 2, 8, 8), torch.tensor([500.0])
    context = bench.positive[0][0]
    import comfy.model_management

    comfy.model_management.load_models_gpu([loaded])
    assert torch.allclose(
        loaded.model.diffusion_model(x, t, context), bench.model.model.diffusion_model(x, t, context), atol=1e-4
    )


def test_decode_tiled_decode_and_encode(bench, stock):
    samples = {"samples": bench.sample(bench.model, noise=bench.noise((1, 16, 4, 16, 16)))}
    (frames,) = stock.VAEDecode().decode(bench.vae, samples)
    assert frames.shape == (13, 128, 128, 3) and 0 <= frames.min() and frames.max() <= 1
    (tiled,) = stock.VAEDecodeTiled().decode(bench.vae, samples, 64, 16, 64, 8)
    assert tiled.shape == frames.shape
    assert (tiled - frames).abs().mean() < 0.01
    (encoded,) = stock.VAEEncode().encode(bench.vae, frames)
    (again,) = stock.VAEDecode().decode(bench.vae, encoded)
    assert encoded["samples"].shape == samples["samples"].shape
    assert (again - frames).square().mean() < 1e-3


def test_the_node_returns_model_prompts_and_vae(bench):
    model, positive, negative, vae = PreciseCacheTinyModel.execute("square", "blue", "up")
    assert positive[0][0].shape == negative[0][0].shape == (1, 3, 64)
    assert model.get_model_object("model_sampling").shift == bundle.SHIFT
    assert vae.latent_channels == 16


def test_cache_stats_reports_the_run(bench):
    model = bench.lfcache(alpha=1.0)
    samples = {"samples": bench.sample(model)}
    out = PreciseCacheStats.execute(model, samples)
    assert out[0] is samples
    report = json.loads(out[1])
    assert report["version"] == 2 and report["runs"][0]["reused"] > 0
    assert out.ui["precisecache"][0] == report
    assert out[2].ndim == 4 and out[2].shape[-1] == 3


def test_cache_stats_without_a_cache_says_so(bench, caplog):
    out = PreciseCacheStats.execute(bench.model, {"samples": bench.noise()})
    assert json.loads(out[1]) == {"version": 2, "runs": []}
    assert "Cache Stats knows no run of its model" in caplog.text


def test_a_wrapper_that_writes_into_the_models_input_does_not_change_the_result(bench):
    """EasyCache writes there. Other models are safe because their input is cast to 16 bits, which copies it."""
    from comfy.patcher_extension import WrappersMP

    def write(executor, x, *args, **kwargs):
        out = executor(x, *args, **kwargs)
        x.zero_()
        return out

    model = bench.model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "writes", write)
    assert torch.equal(bench.sample(model, steps=2), bench.sample(bench.model, steps=2))
