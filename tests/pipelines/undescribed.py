"""Small pipelines that nobody has described to the caches: LTX, Flux and Stable Diffusion's UNet."""

from pipes import GUIDANCE, STEPS, embeddings, euler, quiet, runner, scaled

import torch


def ltx(guidance=3.0, rescale=0.0, batch=1):
    from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

    torch.manual_seed(1)
    transformer = LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=8,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    pipe = quiet(
        LTXPipeline(
            scheduler=euler(), vae=vae.eval(), text_encoder=None, tokenizer=None, transformer=scaled(transformer)
        )
    )
    return pipe, runner(
        pipe,
        embeddings(0, batch, 32, 4),
        prompt_embeds=embeddings(1, batch, 4, 8),
        prompt_attention_mask=torch.ones(batch, 4),
        negative_prompt_embeds=embeddings(2, batch, 4, 8),
        negative_prompt_attention_mask=torch.ones(batch, 4),
        height=128,
        width=128,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        guidance_rescale=rescale,
    )


def flux():
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(1)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKL(
        block_out_channels=(8,), latent_channels=4, norm_num_groups=2, use_quant_conv=False, use_post_quant_conv=False
    )
    pipe = quiet(
        FluxPipeline(
            scheduler=euler(),
            vae=vae.eval(),
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=scaled(transformer),
        )
    )
    return pipe, runner(
        pipe,
        embeddings(0, 1, 16, 16),
        prompt_embeds=embeddings(1, 1, 4, 8),
        pooled_prompt_embeds=embeddings(2, 1, 8),
        height=8,
        width=8,
        num_inference_steps=STEPS,
    )


def stable_diffusion(scheduler):
    import diffusers

    torch.manual_seed(1)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=2)
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        unet=unet.eval(),
        scheduler=getattr(diffusers, scheduler)(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return quiet(pipe), runner(
        pipe,
        embeddings(0, 1, 4, 8, 8),
        prompt_embeds=embeddings(1, 1, 4, 8),
        negative_prompt_embeds=embeddings(2, 1, 4, 8),
        height=8,
        width=8,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
    )
