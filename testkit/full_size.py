"""The host's own models at full size, on any device: on `meta` they have shapes and no weights."""

from dataclasses import dataclass

import torch


class Unsupported(Exception):
    """This host does not know the architecture."""


@dataclass(frozen=True)
class FullSize:
    """config, kind: the host's class in `comfy.supported_models` and its `image_model`.

    sizes: the model class's own arguments; dim, head_dim, blocks: width, head width and number of its blocks.
    text: (tokens, width) of the conditioning; branches: forwards in one guided call.
    frames: as in the paper's Table 1; resolutions: {name: (width, height)}.
    """

    config: str
    kind: str
    sizes: dict
    dim: int
    head_dim: int
    blocks: int
    text: tuple
    branches: int
    frames: int
    resolutions: dict

    def latent(self, resolution, frames=None):
        """(C, T, H, W) of a video; resolution: a name or (width, height)."""
        width, height = self.resolutions.get(resolution, resolution)
        return (16, ((frames or self.frames) - 1) // 4 + 1, height // 8, width // 8)


def _wan(dim, ffn_dim, num_layers):
    return FullSize(
        "WAN21_T2V",
        "wan2.1",
        dict(
            model_type="t2v",
            dim=dim,
            ffn_dim=ffn_dim,
            num_heads=dim // 128,
            num_layers=num_layers,
            in_dim=16,
            out_dim=16,
            patch_size=(1, 2, 2),
            freq_dim=256,
            window_size=(-1, -1),
            qk_norm=True,
            cross_attn_norm=True,
            eps=1e-6,
        ),
        dim,
        128,
        num_layers,
        (512, 4096),
        2,
        81,
        {"480p": (832, 480), "720p": (1280, 720)},
    )


def _cogvideox(heads, num_layers, is_rotary):
    return FullSize(
        "CogVideoX_T2V",
        "cogvideox",
        dict(
            num_attention_heads=heads,
            attention_head_dim=64,
            num_layers=num_layers,
            time_embed_dim=512,
            text_embed_dim=4096,
            in_channels=16,
            patch_size=2,
            use_rotary_positional_embeddings=is_rotary,
            use_learned_positional_embeddings=False,
        ),
        heads * 64,
        64,
        num_layers,
        (226, 4096),
        2,
        49,
        {"480p": (720, 480)},
    )


MODELS = {
    "wan14b": _wan(5120, 13824, 40),
    "wan1.3b": _wan(1536, 8960, 30),
    "hunyuan": FullSize(
        "HunyuanVideo",
        "hunyuan_video",
        dict(
            in_channels=16,
            out_channels=16,
            vec_in_dim=768,
            context_in_dim=4096,
            hidden_size=3072,
            mlp_ratio=4.0,
            num_heads=24,
            depth=20,
            depth_single_blocks=40,
            axes_dim=[16, 56, 56],
            theta=256,
            patch_size=[1, 2, 2],
            qkv_bias=True,
            guidance_embed=True,
            byt5=False,
            meanflow=False,
            use_cond_type_embedding=False,
            vision_in_dim=None,
            meanflow_sum=False,
        ),
        3072,
        128,
        60,
        (256, 4096),
        1,
        65,
        {"480p": (640, 480)},
    ),
    "cogvideox-2b": _cogvideox(30, 30, False),
    "cogvideox-5b": _cogvideox(48, 42, True),
}


def layered(name, layers):
    """The sizes that give a model this many blocks (HunyuanVideo: one double block for every two single ones)."""
    if "depth" in MODELS[name].sizes:
        return {"depth": layers // 3, "depth_single_blocks": layers - layers // 3}
    return {"num_layers": layers}


def build(name, device="meta", dtype=torch.bfloat16, **sizes):
    """The host's model, a `comfy.model_base.BaseModel` with uninitialised weights.

    sizes: replace some of the model's own. Raises Unsupported if this host lacks the architecture.
    """
    import comfy.supported_models

    spec = MODELS[name]
    if not hasattr(comfy.supported_models, spec.config):
        raise Unsupported(f"this host has no {spec.config}")
    config = getattr(comfy.supported_models, spec.config)({"image_model": spec.kind, **spec.sizes, **sizes})
    config.set_inference_dtype(dtype, None)
    return config.get_model({}, "", device=device)


def forward(model, name, latent, rows, device="meta", dtype=torch.bfloat16):
    """One forward of the network through the host's code and PyTorch's attention.

    latent: (C, T, H, W); rows: guidance branches in the batch.
    """
    from comfy.ldm.modules.attention import attention_pytorch

    def override(original, *args, **kwargs):
        return attention_pytorch(*args, **kwargs)

    tokens, width = MODELS[name].text

    def empty(*shape):
        return torch.zeros(rows, *shape, device=device, dtype=dtype)

    extra = {"y": empty(768), "guidance": empty()} if name == "hunyuan" else {}
    return model.diffusion_model(
        empty(*latent),
        torch.zeros(rows, device=device),
        context=empty(tokens, width),
        transformer_options={"optimized_attention_override": override},
        **extra,
    )
