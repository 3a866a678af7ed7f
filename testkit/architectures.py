"""Small random-weight models of the architectures the pack supports, through the stock loader.

Each is built with the host's own class, so that its state dict has the model's own key
layout, and then loaded as a file would be.
"""

import contextlib
import dataclasses
import importlib
from dataclasses import dataclass
from functools import cache
from unittest import mock

import comfy.model_detection
import comfy.ops
import comfy.sd
import torch

from testkit.full_size import MODELS, Unsupported


@dataclass(frozen=True)
class Architecture:
    """module, cls: the host's class; config: its sizes; latent: shape of what is sampled.

    text: width of the conditioning's tokens; extra: further conditioning.
    blocks: how many BlockCache should find, 0 where it computes every one. fixed: sizes that the host's
    detection assumes instead of reading them, so that `load` has to set them (Mochi and Qwen-Image exist
    in one size; to old hosts Flux does too).
    """

    module: str
    cls: str
    config: dict
    latent: tuple
    text: int
    blocks: int
    extra: tuple = ()
    fixed: tuple = ()


_WAN = dict(dim=128, ffn_dim=128, num_heads=1, num_layers=8)
_HUNYUAN = dict(
    MODELS["hunyuan"].sizes, context_in_dim=64, hidden_size=128, num_heads=1, depth=4, depth_single_blocks=6
)

ARCHITECTURES = {
    "wan2.1 t2v": Architecture(
        "comfy.ldm.wan.model", "WanModel", dict(_WAN, model_type="t2v"), (1, 16, 2, 8, 8), 4096, 8
    ),
    "wan2.1 i2v": Architecture(
        "comfy.ldm.wan.model", "WanModel", dict(_WAN, model_type="i2v", in_dim=36), (1, 16, 2, 8, 8), 4096, 8
    ),
    "wan2.1 vace": Architecture(
        "comfy.ldm.wan.model", "VaceWanModel", dict(_WAN, vace_layers=4, vace_in_dim=96), (1, 16, 2, 8, 8), 4096, 8
    ),
    "wan2.1 fun control": Architecture(
        "comfy.ldm.wan.model", "WanModel", dict(_WAN, model_type="i2v", in_dim=48), (1, 16, 2, 8, 8), 4096, 8
    ),
    "wan2.1 camera": Architecture(
        "comfy.ldm.wan.model", "CameraWanModel", dict(_WAN, model_type="camera", in_dim=32), (1, 16, 2, 8, 8), 4096, 8
    ),
    "wan2.2 5b": Architecture(
        "comfy.ldm.wan.model",
        "WanModel",
        dict(_WAN, model_type="t2v", in_dim=48, out_dim=48),
        (1, 48, 2, 8, 8),
        4096,
        8,
    ),
    "hunyuanvideo": Architecture(
        "comfy.ldm.hunyuan_video.model", "HunyuanVideo", _HUNYUAN, (1, 16, 2, 8, 8), 64, 10, ("pooled",)
    ),
    "hunyuanvideo i2v": Architecture(
        "comfy.ldm.hunyuan_video.model",
        "HunyuanVideo",
        dict(_HUNYUAN, in_channels=33),
        (1, 16, 2, 8, 8),
        64,
        10,
        ("pooled",),
    ),
    "hunyuanvideo 1.5": Architecture(
        "comfy.ldm.hunyuan_video.model",
        "HunyuanVideo",
        dict(
            _HUNYUAN,
            in_channels=65,
            out_channels=32,
            vec_in_dim=None,
            guidance_embed=False,
            byt5=True,
            use_cond_type_embedding=True,
            vision_in_dim=1152,
            meanflow_sum=True,
            patch_size=[1, 1, 1],
        ),
        (1, 32, 2, 8, 8),
        64,
        10,
        ("pooled",),
    ),
    "cogvideox": Architecture(
        "comfy.ldm.cogvideo.model",
        "CogVideoXTransformer3DModel",
        dict(
            num_attention_heads=1,
            attention_head_dim=64,
            num_layers=8,
            text_embed_dim=64,
            time_embed_dim=64,
            use_rotary_positional_embeddings=True,
        ),
        (1, 16, 2, 8, 8),
        64,
        8,
    ),
    "ltxv": Architecture(
        "comfy.ldm.lightricks.model",
        "LTXVModel",
        dict(num_layers=8, attention_head_dim=4, cross_attention_dim=128),
        (1, 128, 2, 8, 8),
        4096,
        8,
        ("mask",),
    ),
    "ltx-2": Architecture(  # video and audio in one latent; its blocks take and return tuples
        "comfy.ldm.lightricks.av_model",
        "LTXAVModel",
        # few heads, because every one of them attends to a text of 1024 tokens
        dict(
            num_layers=4,
            num_attention_heads=4,
            attention_head_dim=32,
            audio_num_attention_heads=4,
            audio_attention_head_dim=32,
            cross_attention_dim=128,
            audio_cross_attention_dim=128,
            caption_channels=128,
            connector_num_attention_heads=1,
        ),
        (1, 128, 2, 8, 8),
        128,
        0,
        (),
        (
            "num_attention_heads",
            "attention_head_dim",
            "audio_num_attention_heads",
            "audio_attention_head_dim",
            "audio_cross_attention_dim",
            "caption_channels",
            "connector_num_attention_heads",
        ),
    ),
    "mochi": Architecture(
        "comfy.ldm.genmo.joint_model.asymm_models_joint",
        "AsymmDiTJoint",
        dict(
            depth=6,
            patch_size=2,
            num_heads=2,
            hidden_size_x=128,
            hidden_size_y=64,
            mlp_ratio_x=96.0,
            mlp_ratio_y=4.0,
            learn_sigma=False,
            in_channels=12,
            qk_norm=True,
            qkv_bias=False,
            out_bias=True,
            attn_drop=0.0,
            patch_embed_bias=True,
            posenc_preserve_area=True,
            timestep_mlp_bias=True,
            attend_to_padding=False,
            timestep_scale=1000.0,
            use_t5=True,
            t5_feat_dim=64,
            t5_token_length=16,
            rope_theta=10000.0,
        ),
        (1, 12, 2, 8, 8),
        64,
        6,
        ("mask",),
        ("depth", "num_heads", "hidden_size_x", "hidden_size_y", "mlp_ratio_x", "t5_feat_dim", "t5_token_length"),
    ),
    "flux": Architecture(
        "comfy.ldm.flux.model",
        "Flux",
        dict(
            in_channels=16,
            out_channels=16,
            vec_in_dim=64,
            context_in_dim=64,
            hidden_size=128,
            mlp_ratio=4.0,
            num_heads=1,
            depth=4,
            depth_single_blocks=6,
            axes_dim=[16, 56, 56],
            theta=10000,
            patch_size=2,
            qkv_bias=True,
            guidance_embed=True,
            txt_ids_dims=[],
        ),
        (1, 16, 16, 16),
        64,
        10,
        ("pooled64",),
        ("hidden_size", "num_heads", "vec_in_dim", "context_in_dim"),
    ),
    "lumina 2": Architecture(  # its blocks take no patches
        "comfy.ldm.lumina.model",
        "NextDiT",
        dict(
            in_channels=16,
            dim=64,
            n_layers=4,
            n_heads=2,
            n_kv_heads=2,
            multiple_of=32,
            qk_norm=True,
            cap_feat_dim=64,
            axes_dims=[8, 12, 12],
            axes_lens=[300, 512, 512],
        ),
        (1, 16, 16, 16),
        64,
        0,
        (),
        ("n_heads", "n_kv_heads", "multiple_of", "axes_dims", "axes_lens"),
    ),
    "qwen-image": Architecture(
        "comfy.ldm.qwen_image.model",
        "QwenImageTransformer2DModel",
        dict(num_layers=8, num_attention_heads=1, joint_attention_dim=64),
        (1, 16, 1, 16, 16),
        64,
        8,
        (),
        ("num_attention_heads", "joint_attention_dim"),
    ),
}


@cache
def load(name, **sizes):
    """The model's patcher. Raises Unsupported where this host does not know the architecture.

    sizes: replace some of the model's own, such as its number of layers.
    """
    weights, fixed, build = random_weights(name, **sizes)
    with _sizes(fixed):
        patcher = comfy.sd.load_diffusion_model_state_dict(weights)
    if patcher is None:
        raise Unsupported(f"this host does not recognise {name}")
    assert isinstance(patcher.model.diffusion_model, build)
    return patcher


def random_weights(name, **sizes):
    """(state dict in the model's own key layout, {size that detection cannot read: value}, the host's class).

    sizes: as for `load`. Raises Unsupported where this host does not know the architecture.
    """
    spec = dataclasses.replace(ARCHITECTURES[name], config=ARCHITECTURES[name].config | sizes)
    try:
        build = getattr(importlib.import_module(spec.module), spec.cls)
    except ImportError as error:
        raise Unsupported(f"this host has no {name}") from error
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(**_known(spec), dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init)
        weights = {}
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                # weights of norms near 1, all others small, so that each block adds a little
                is_norm = tensor.ndim == 1 and ("norm" in key) and key.endswith(("weight", "scale"))
                tensor = torch.randn(tensor.shape) * 0.05 + (1.0 if is_norm else 0.0)
            weights[key] = tensor
    return weights, {name: spec.config[name] for name in spec.fixed}, build


def _known(spec):
    """The sizes that this host's class takes. Raises Unsupported if it does not take one that is needed."""
    params = getattr(importlib.import_module(spec.module), f"{spec.cls}Params", None)
    if params is None:
        return spec.config
    unknown = spec.config.keys() - {field.name for field in dataclasses.fields(params)}
    needed = sorted(name for name in unknown if spec.config[name])
    if needed:
        raise Unsupported(f"this host's {spec.cls} has no {', '.join(needed)}")
    return {name: value for name, value in spec.config.items() if name not in unknown}


@contextlib.contextmanager
def _sizes(fixed):
    """Replace the sizes that the host's detection assumes, while one model loads."""
    original = comfy.model_detection.detect_unet_config

    def detect(*args, **kwargs):
        return {**original(*args, **kwargs), **fixed}

    with mock.patch.object(comfy.model_detection, "detect_unet_config", detect) if fixed else contextlib.nullcontext():
        yield


def conditioning(name, seed):
    """CONDITIONING in the form that the stock text encoders return."""
    spec = ARCHITECTURES[name]
    generator = torch.Generator().manual_seed(seed)
    options = {}
    if "pooled" in spec.extra:
        options["pooled_output"] = torch.randn(1, 768, generator=generator)
    if "pooled64" in spec.extra:
        options["pooled_output"] = torch.randn(1, 64, generator=generator)
    if "mask" in spec.extra:
        options["attention_mask"] = torch.ones(1, 16, dtype=torch.long)
    return [[torch.randn(1, 16, spec.text, generator=generator), options]]
