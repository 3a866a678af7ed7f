"""A trained model of ours as the class of diffusers."""

import json

from precisecache_core.tiny import bundle


def sizes_of(*folder):
    """The sizes of a trained model; folder: of its files, none for the bundled model."""
    weights, metadata = bundle.read_weights(*folder)
    return bundle.config_of(weights, json.loads(metadata["config"])["transformer"]["num_heads"])


def trained_transformer(*folder):
    """A trained model as WanTransformer3DModel, by diffusers' own conversion, float32; folder: as above."""
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    sizes = sizes_of(*folder)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=sizes.num_heads,
        attention_head_dim=sizes.dim // sizes.num_heads,
        in_channels=sizes.in_dim,
        out_channels=sizes.in_dim,
        text_dim=sizes.text_dim,
        freq_dim=sizes.freq_dim,
        ffn_dim=sizes.ffn_dim,
        num_layers=sizes.num_layers,
        eps=sizes.eps,
    )
    weights = {name: tensor.float() for name, tensor in bundle.read_weights(*folder)[0].items()}
    model.load_state_dict(convert_wan_transformer_to_diffusers(weights))
    return model.eval()
