"""Small pipelines: Wan with the bundled model's weights, the others with random ones.

Each function returns (pipe, go): go(**changes) runs the pipe and returns its latents. diffusers is imported where it is
needed, because a machine without it collects these tests, too.
"""

import gc
import weakref

import torch

from precisecache_core.tiny.prompts import TEXT_DIM, encode_prompt
from testkit.diffusers_model import sizes_of, trained_transformer

STEPS = 12
GUIDANCE = 4.0


def embeddings(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scaled(module, factor=3.0):
    """Random weights that are large enough for the output to depend on the input."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * factor / parameter[0].numel() ** 0.5 / 3
                )
            elif "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inputs_of(module, seen):
    """Put a weak reference to the latent of each call of a transformer into the list; returns the hook's handle."""
    return module.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(weakref.ref(kwargs["hidden_states"])), with_kwargs=True
    )


def alive(seen):
    gc.collect()
    return [ref for ref in seen if ref() is not None]


def runner(pipe, latents, **given):
    def go(**changes):
        options = {**given, "latents": latents.clone(), "output_type": "latent", "return_dict": False, **changes}
        return pipe(**options)[0]

    return go


# --- Wan ---


def at_step(number, do):
    """A callback_on_step_end that does something once."""

    def callback(pipe, step, timestep, kwargs):
        return (do(pipe, kwargs) if step == number else None) or kwargs

    return callback


def euler(shift=2.0):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=shift)


def wan_vae(z_dim=16):
    from diffusers import AutoencoderKLWan

    scale = {"latents_mean": [0.0] * z_dim, "latents_std": [1.0] * z_dim}
    return AutoencoderKLWan(base_dim=8, z_dim=z_dim, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **scale).eval()


def small_wan(in_channels=4, out_channels=4, layers=4, **options):
    from diffusers import WanTransformer3DModel

    torch.manual_seed(1)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=in_channels,
        out_channels=out_channels,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=layers,
        rope_max_seq_len=32,
        **options,
    )
    return scaled(model)


def tiny_wan(size=16, batch=1, **options):
    from diffusers import WanPipeline

    parts = {"scheduler": euler(), "transformer": trained_transformer(), **options}
    pipe = quiet(WanPipeline(tokenizer=None, text_encoder=None, vae=wan_vae(sizes_of().in_dim), **parts))
    latents = embeddings(0, batch, sizes_of().in_dim, 4, size, size)
    cond = encode_prompt("circle", "red", "left").expand(batch, -1, -1)
    assert cond.shape[-1] == TEXT_DIM
    return pipe, runner(
        pipe,
        latents,
        prompt_embeds=cond,
        negative_prompt_embeds=encode_prompt().expand(batch, -1, -1),
        height=size * 8,
        width=size * 8,
        num_frames=13,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
    )


def wan(batch=1, **options):
    from diffusers import WanPipeline

    parts = {"scheduler": euler(), "transformer": small_wan(), **options}
    pipe = quiet(WanPipeline(tokenizer=None, text_encoder=None, vae=wan_vae(4), **parts))
    return pipe, runner(
        pipe,
        embeddings(0, batch, 4, 3, 8, 8),
        prompt_embeds=embeddings(1, batch, 4, 8),
        negative_prompt_embeds=embeddings(2, batch, 4, 8),
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
    )


def wan_two(ratio=0.8, **options):
    """Wan 2.2: one transformer for high noise, one for low noise."""
    second = small_wan()
    with torch.no_grad():
        second.proj_out.weight.mul_(1.2)
    return wan(transformer_2=second, boundary_ratio=ratio, **options)


def wan_image(in_channels=12, **options):
    from diffusers import WanImageToVideoPipeline

    parts = {
        "scheduler": euler(),
        "transformer_2": small_wan(in_channels=in_channels),
        "boundary_ratio": 0.5,
        **options,
    }
    pipe = quiet(
        WanImageToVideoPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=wan_vae(4),
            image_encoder=None,
            image_processor=None,
            transformer=small_wan(in_channels=in_channels),
            **parts,
        )
    )
    return pipe, runner(
        pipe,
        embeddings(0, 1, 4, 3, 8, 8),
        image=embeddings(3, 1, 3, 64, 64).sigmoid(),
        prompt_embeds=embeddings(1, 1, 4, 8),
        negative_prompt_embeds=embeddings(2, 1, 4, 8),
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
    )


# --- HunyuanVideo ---


def hunyuan(true_cfg=1.0, batch=1, scheduler=None):
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    torch.manual_seed(1)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=8,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    pipe = quiet(
        HunyuanVideoPipeline(
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=scaled(transformer),
            vae=vae.eval(),
            scheduler=scheduler or euler(7.0),
        )
    )
    given = {
        f"{side}{name}": value
        for side, seed in (("", 1), ("negative_", 2))
        for name, value in (
            ("prompt_embeds", embeddings(seed, batch, 4, 8)),
            ("pooled_prompt_embeds", embeddings(seed + 5, batch, 8)),
            ("prompt_attention_mask", torch.ones(batch, 4)),
        )
    }
    return pipe, runner(
        pipe,
        embeddings(0, batch, 4, 3, 8, 8),
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=STEPS,
        true_cfg_scale=true_cfg,
        **given,
    )


# --- CogVideoX ---

COGVIDEOX_SCHEDULE = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def cogvideox_parts(in_channels=4, rotary=False, patch_size_t=None):
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel

    torch.manual_seed(1)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=in_channels,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=4,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        patch_size=2,
        patch_size_t=patch_size_t,
        temporal_compression_ratio=4,
        max_text_seq_length=4,
        use_rotary_positional_embeddings=rotary,
        patch_bias=patch_size_t is None,
    )
    vae = AutoencoderKLCogVideoX(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
    )
    return {"tokenizer": None, "text_encoder": None, "vae": vae.eval(), "transformer": scaled(transformer)}


def cogvideox(scheduler="ddim", rotary=False, guidance=GUIDANCE, batch=1, patch_size_t=None):
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline

    kind = {"ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler}[scheduler]
    parts = cogvideox_parts(rotary=rotary, patch_size_t=patch_size_t)
    pipe = quiet(CogVideoXPipeline(scheduler=kind(**COGVIDEOX_SCHEDULE), **parts))
    return pipe, runner(
        pipe,
        embeddings(0, batch, 4 if patch_size_t else 3, 4, 8, 8),
        prompt_embeds=embeddings(1, batch, 4, 8),
        negative_prompt_embeds=embeddings(2, batch, 4, 8),
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        max_sequence_length=4,
    )


def cogvideox_image():
    """The image is in further channels of the transformer's input."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXImageToVideoPipeline

    parts = cogvideox_parts(in_channels=8, rotary=True)
    pipe = quiet(CogVideoXImageToVideoPipeline(scheduler=CogVideoXDDIMScheduler(**COGVIDEOX_SCHEDULE), **parts))
    run = runner(
        pipe,
        embeddings(0, 1, 3, 4, 8, 8),
        image=embeddings(3, 1, 3, 64, 64).sigmoid(),
        prompt_embeds=embeddings(1, 1, 4, 8),
        negative_prompt_embeds=embeddings(2, 1, 4, 8),
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        max_sequence_length=4,
    )
    return pipe, lambda: run(generator=torch.Generator().manual_seed(0))
