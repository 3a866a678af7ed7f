"""The tiny video model's parts: prompts, codec and network."""

import pytest
import torch
import torch.nn.functional as F

from precisecache_core.tiny import bundle
from precisecache_core.tiny.model import TinyVideoConfig, TinyVideoModel
from precisecache_core.tiny.prompts import COLORS, MOTIONS, SUBJECTS, WORDS, encode_prompt, encode_words

# --- prompts ---


def test_a_prompt_is_one_one_hot_token_per_word():
    tokens = encode_prompt("triangle", "orange", "right")
    assert tokens.shape == (1, 3, 64) and tokens.dtype == torch.float32
    assert torch.equal(tokens.sum(-1), torch.ones(1, 3)) and set(tokens.unique().tolist()) == {0, 1}


def test_every_word_has_a_token_of_its_own():
    tokens = [encode_prompt(subject=w)[0, 0] for w in ("", *SUBJECTS)]
    tokens += [encode_prompt(color=w)[0, 1] for w in COLORS] + [encode_prompt(motion=w)[0, 2] for w in MOTIONS]
    assert len({t.argmax().item() for t in tokens}) == 1 + len(SUBJECTS) + len(COLORS) + len(MOTIONS)


def test_a_word_that_is_not_given_is_the_unconditional_token():
    assert torch.equal(encode_prompt("triangle")[0, 1:], encode_prompt()[0, 1:])


@pytest.mark.parametrize("name, word", [("subject", "dog"), ("color", "triangle"), ("motion", "Left")])
def test_an_unknown_word_raises(name, word):
    with pytest.raises(ValueError, match=f"^PreciseCache: {name} must be one of .*got '{word}'"):
        encode_prompt(**{name: word})


def test_tokens_of_another_vocabulary_are_numbered_through_from_1():
    words = {"shape": ("a", "b"), "other shape": ("a", "b"), "camera": ("x", "y", "z")}
    tokens = encode_words(("b", "b", "z"), words)
    assert tokens.shape == (1, 3, 64) and tokens.sum() == 3
    assert tokens[0].argmax(-1).tolist() == [2, 4, 7]
    assert encode_words(("", "a", ""), words)[0].argmax(-1).tolist() == [0, 3, 0]
    assert torch.equal(encode_prompt("circle", "", "grow"), encode_words(("circle", "", "grow"), WORDS))
    with pytest.raises(ValueError, match="^PreciseCache: camera must be one of x, y, z, got 'a'"):
        encode_words(("a", "a", "a"), words)
    with pytest.raises(ValueError):
        encode_words(("a", "a"), words)


# --- codec ---


@pytest.fixture(scope="module")
def codec():
    return bundle.load_codec()


def smooth_video(frames, size=64):
    """A soft blob that moves over smooth gradients, (1, 3, frames, size, size) in [0, 1]."""
    t = torch.linspace(0, 1, frames).view(-1, 1, 1)
    y, x = torch.linspace(-1, 1, size).view(1, -1, 1), torch.linspace(-1, 1, size).view(1, 1, -1)
    blob = torch.exp(-4 * ((x - 0.8 * t + 0.4) ** 2 + (y + 0.2) ** 2))
    gradients = (0.5 + 0.3 * x).expand_as(blob), (0.4 + 0.3 * y).expand_as(blob)
    return torch.stack((0.2 + 0.6 * blob, *gradients))[None]


@pytest.mark.parametrize("latent_frames, frames", [(1, 1), (2, 5), (4, 13)])
def test_the_codec_keeps_wans_ratios_and_a_smooth_video(codec, latent_frames, frames):
    video = smooth_video(frames)
    latent = codec.encode(video)
    assert latent.shape == (1, 16, latent_frames, 8, 8)
    decoded = codec.decode(latent)
    assert decoded.shape == video.shape and 0 <= decoded.min() and decoded.max() <= 1
    # 41 to 49 dB were measured; a flat picture of the mean colour has 15.5
    assert -10 * (decoded - video).square().mean().log10() > 38


def test_frames_beyond_4_n_plus_1_are_cut(codec):
    video = smooth_video(8)
    assert torch.equal(codec.encode(video), codec.encode(video[:, :, :5]))


def test_encoding_is_linear_up_to_its_mean(codec):
    first, second = torch.rand(2, 1, 3, 5, 16, 24)
    mixed = codec.encode(0.25 * first + 0.75 * second)
    torch.testing.assert_close(mixed, 0.25 * codec.encode(first) + 0.75 * codec.encode(second), rtol=0, atol=1e-5)


def test_decoding_and_encoding_again_changes_a_smooth_latent_little(codec):
    # a decoded picture loses only what the upsampling by 2 smooths away
    latent = codec.encode(smooth_video(5))
    again = codec.encode(codec.decode(latent))
    assert (again - latent).norm() < 0.1 * latent.norm()


# --- network ---


@pytest.fixture(scope="module")
def small_model():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = TinyVideoModel(TinyVideoConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2))
    return model.eval().requires_grad_(False)


def request(x, t=500.0):
    prompts = [encode_prompt("triangle", "red", "left"), encode_prompt()]
    context = torch.cat([prompts[i % 2] for i in range(len(x))])
    return x, torch.full((len(x),), t), context


@pytest.mark.parametrize("shape", [(1, 16, 1, 2, 2), (2, 16, 3, 4, 6), (1, 16, 2, 5, 7), (1, 16, 2, 3, 8)])
def test_the_network_answers_in_the_latents_shape(small_model, shape):
    assert small_model(*request(torch.randn(shape))).shape == shape


def test_odd_sides_are_padded_by_wrapping(small_model):
    x = torch.randn(1, 16, 2, 5, 7)
    wrapped = F.pad(x, (0, 1, 0, 1, 0, 0), mode="circular")
    assert torch.equal(small_model(*request(x)), small_model(*request(wrapped))[..., :5, :7])


def test_a_batch_equals_its_samples(small_model):
    x, t, context = request(torch.randn(3, 16, 2, 4, 4))
    apart = torch.cat([small_model(x[i : i + 1], t[:1], context[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(small_model(x, t, context), apart, rtol=0, atol=1e-5)


def test_prompt_noise_level_and_position_all_matter(small_model):
    x, t, context = request(torch.randn(1, 16, 2, 4, 4))
    answer = small_model(x, t, context)
    assert not torch.allclose(answer, small_model(x, t, encode_prompt()))
    assert not torch.allclose(answer, small_model(x, t / 2, context))
    # without positions, equal patches would get equal answers
    same = small_model(x[..., :1, :2, :2].repeat(1, 1, 2, 2, 2), t, context)
    assert not torch.allclose(same[:, :, 0], same[:, :, 1])


@pytest.mark.parametrize("sizes", [{"dim": 25}, {"dim": 9, "num_heads": 3}])
def test_heads_that_do_not_divide_raise(sizes):
    with pytest.raises(ValueError, match=f"^PreciseCache: dim .*got dim {sizes['dim']}"):
        TinyVideoConfig(**sizes)


def test_the_bundled_model_loads_and_answers():
    model = bundle.load_model()
    answer = model(*request(torch.randn(2, 16, 2, 6, 5)))
    assert answer.shape == (2, 16, 2, 6, 5) and torch.isfinite(answer).all() and answer.std() > 0


def test_a_model_and_its_codec_load_from_their_folder(tmp_path, small_model, codec):
    train = pytest.importorskip("tools.training.train", reason="the registry's package leaves the training out")
    train.export(small_model.state_dict(), codec, small_model.config, tmp_path / "some" / "model")
    loaded = bundle.load_model(tmp_path / "some" / "model")
    assert loaded.config == small_model.config != bundle.load_model().config
    for name, weight in small_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float())  # the file holds float16
    assert torch.equal(bundle.load_codec(tmp_path / "some" / "model").basis, codec.basis)
