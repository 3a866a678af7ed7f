"""What multi_gpu computes for a rank is what Raylight's own forwards do, counted by torch on the meta device.

Needs Raylight's sources (RAYLIGHT_PATH, the clone); xfuser, Ray and a second process are stood in for.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import MethodType, ModuleType, SimpleNamespace

import pytest
import torch

from benchmarks.meter import count
from benchmarks.rank_timing import to_heads, to_tokens
from benchmarks.sequence_parallel import WIDTH, forward_of
from testkit.full_size import MODELS, build

RAYLIGHT = os.environ.get("RAYLIGHT_PATH")
pytestmark = [
    pytest.mark.usefixtures("host_of_benchmarks"),
    pytest.mark.skipif(not RAYLIGHT, reason="needs Raylight's sources: set RAYLIGHT_PATH to its clone"),
]
LATENT = (16, 3, 6, 10)  # 45 tokens, which have to be padded
RANKS = 4


class Traffic:
    """Stands in for the other ranks; shapes are all that counts. sent: numbers that left this rank."""

    def __init__(self):
        self.sent = 0

    def all_gather(self, x, dim):
        self.sent += x.numel() * (RANKS - 1)
        return torch.cat([x] * RANKS, dim)

    def swap(self, chunks):
        self.sent += chunks.numel() * (RANKS - 1) / RANKS
        return chunks

    def attention(self, q, k, v, heads, skip_reshape=False, **options):
        """As Raylight's attention by xfuser: an all-to-all before and after."""
        if not skip_reshape:
            q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        q, k, v = (to_heads(t.transpose(1, 2), RANKS, self.swap).transpose(1, 2) for t in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return to_tokens(out.transpose(1, 2), RANKS, self.swap)


@pytest.fixture
def traffic(monkeypatch):
    found = Traffic()

    def module(name, **content):
        made = ModuleType(name)
        made.__path__ = []
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    for name in ("xfuser", "xfuser.core", "raylight", "raylight.diffusion_models"):
        module(name)
    for model in ("wan", "flux", "hunyuan_video"):
        module(f"raylight.diffusion_models.{model}")
    module(
        "xfuser.core.distributed",
        get_sequence_parallel_rank=lambda: 0,
        get_sequence_parallel_world_size=lambda: RANKS,
        get_sp_group=lambda: found,
    )
    attention = module(
        "raylight.distributed_modules.attention",
        get_attn_type=str,
        get_sync_ulysses=bool,
        make_xfuser_attention=lambda *_: found.attention,
    )
    module("raylight.distributed_modules", attention=attention)

    def load(name):
        path = Path(RAYLIGHT) / "src" / "raylight" / "diffusion_models" / f"{name.replace('.', '/')}.py"
        spec = importlib.util.spec_from_file_location(f"raylight.diffusion_models.{name}", path)
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    load("utils")
    found.code = SimpleNamespace(**{m: load(f"{m}.xdit_context_parallel") for m in ("wan", "flux", "hunyuan_video")})
    return found


def split(name, network, code):
    """Give a network Raylight's forwards, as its USP does."""

    def give(module, forward, attribute="forward"):
        setattr(module, attribute, MethodType(forward, module))

    if name == "hunyuan":
        for block in network.double_blocks:
            give(block, code.flux.usp_double_stream_forward)
        for block in network.single_blocks:
            give(block, code.flux.usp_single_stream_forward)
        for block in network.txt_in.individual_token_refiner.blocks:
            give(block, code.hunyuan_video.usp_token_refiner_forward)
        give(network, code.hunyuan_video.usp_dit_forward, "forward_orig")
    else:
        for block in network.blocks:
            give(block.self_attn, code.wan.usp_self_attn_forward)
            give(block.cross_attn, code.wan.usp_t2v_cross_attn_forward)
        give(network, code.wan.usp_dit_forward, "forward_orig")


@torch.no_grad()
@pytest.mark.parametrize("name", ("wan1.3b", "hunyuan"))
def test_a_rank_does_what_raylight_does(traffic, name):
    model, rows = build(name), MODELS[name].branches
    split(name, model.diffusion_model, traffic.code)
    done, computed = count(model, name, LATENT, rows), forward_of(name, LATENT, RANKS)
    assert (done.macs, done.attention) == (computed.macs, computed.attention)
    assert WIDTH * traffic.sent == computed.sent
