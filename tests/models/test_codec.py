import json

import pytest
import torch

from pipeline.models.codec import Codec, CodecSpec, PixelCodec, latent_shape, load_codec, new_codec, save_codec

SMALL = CodecSpec(width=8, global_width=16)
GRAY = (1, 16, 16)


def pixels(rng, *shape):
    return 2 * torch.rand(*shape, generator=rng) - 1


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("spec", "frame_shape", "expected"),
    [
        (SMALL, GRAY, (4, 4, 4)),
        (CodecSpec(latent_channels=6, downsample=8, width=8), (3, 32, 16), (6, 4, 2)),
        (CodecSpec(downsample=2, width=8, content_channels=0), GRAY, (4, 8, 8)),
        (None, (3, 8, 8), (3, 8, 8)),
    ],
)
def test_latents_have_the_shape_that_the_codec_says(rng, spec, frame_shape, expected):
    codec = new_codec(spec, frame_shape)
    video = pixels(rng, 2, 3, *frame_shape)
    latents = codec.encode(video)
    assert codec.latent_shape == latent_shape(spec, frame_shape) == expected
    assert latents.shape == (2, 3, *expected)
    assert codec.decode(latents).shape == video.shape


def test_each_frame_is_coded_by_itself(rng):
    codec = Codec(SMALL, GRAY)
    video = pixels(rng, 2, 3, *GRAY)
    changed = video.clone()
    changed[1, 2] = -1
    latents, others = codec.encode(video), codec.encode(changed)
    assert torch.equal(latents[0], others[0])
    assert torch.equal(latents[1, :2], others[1, :2])
    assert not torch.equal(latents[1, 2], others[1, 2])


def test_decoded_pixels_are_in_range_whatever_the_latents(rng):
    latents = 100 * torch.randn(2, 3, 4, 4, 4, generator=rng)
    decoded = Codec(SMALL, GRAY).decode(latents)
    assert decoded.abs().max() == 1


def test_encode_standardises_and_decode_takes_standardised_latents(rng):
    codec = Codec(SMALL, GRAY)
    video = pixels(rng, 2, 3, *GRAY)
    raw, decoded = codec.encode(video), codec.decode(codec.encode(video))
    codec.mean.fill_(2.0)
    codec.std.fill_(4.0)
    assert torch.allclose(codec.encode(video), (raw - 2) / 4)
    assert torch.equal(codec.decode(raw), decoded)


def test_the_gradient_of_pixels_reaches_latents():
    latents = torch.zeros(1, 2, 4, 4, 4, requires_grad=True)
    Codec(SMALL, GRAY).decode(latents).sum().backward()
    assert latents.grad is not None
    assert (latents.grad != 0).all(dim=(1, 2, 3, 4))


def test_the_place_channels_hold_no_more_numbers_than_they_may(rng):
    codec = Codec(CodecSpec(width=8, global_width=16, content_channels=2, place_size=3), GRAY).double()
    latents = codec.encoder(pixels(rng, 1, 200, *GRAY)[0].double())
    content, place = (part.flatten(1) - part.flatten(1).mean(0) for part in latents.split(2, dim=1))
    assert torch.linalg.matrix_rank(place, rtol=1e-9) == 3
    assert torch.linalg.matrix_rank(content, rtol=1e-9) > 3


def test_without_a_codec_the_way_back_is_exact():
    codec = PixelCodec(GRAY)
    levels = torch.arange(256.0).reshape(1, 1, 1, 16, 16) / 127.5 - 1
    assert torch.equal(codec.decode(codec.encode(levels)), levels)
    codec.mean.fill_(-0.85)
    codec.std.fill_(0.41)
    assert torch.allclose(codec.decode(codec.encode(levels)), levels, atol=2e-7)


@pytest.mark.parametrize("spec", [SMALL, None])
def test_a_loaded_codec_is_the_saved_one(rng, tmp_path, spec):
    codec = new_codec(spec, GRAY)
    codec.mean.fill_(0.25)
    codec.std.fill_(3.0)
    save_codec(codec, tmp_path)
    loaded = load_codec(tmp_path)
    video = pixels(rng, 2, 3, *GRAY)
    assert type(loaded) is type(codec)
    assert torch.equal(loaded.encode(video), codec.encode(video))
    assert torch.equal(loaded.decode(codec.encode(video)), codec.decode(codec.encode(video)))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_description_names_the_weights(tmp_path):
    texts = []
    for index in (0, 1):
        torch.manual_seed(index)
        (tmp_path / str(index)).mkdir()
        save_codec(Codec(SMALL, GRAY), tmp_path / str(index))
        texts.append((tmp_path / str(index) / "codec.json").read_text())
    assert texts[0] != texts[1]
    assert json.loads(texts[0])["spec"] == json.loads(texts[1])["spec"]
    (tmp_path / "0" / "codec.json").write_text(texts[1])
    with pytest.raises(
        ValueError, match=r"codec\.safetensors must have the sha256 of codec\.json: .* has [0-9a-f]{64}"
    ):
        load_codec(tmp_path / "0")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent_channels": 0}, "latent_channels must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"downsample": 0}, "downsample must be even and at least 2, got 0"),
        ({"downsample": 3}, "downsample must be even and at least 2, got 3"),
        ({"global_width": 0}, "global_width must be at least 1, got 0"),
        ({"place_size": 0}, "place_size must be at least 1, got 0"),
        (
            {"content_channels": 4},
            "content_channels must be below latent_channels: content_channels=4, latent_channels=4",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_its_rule_and_value(parameters, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        CodecSpec(**parameters)


def test_a_frame_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="frame size must be a multiple of downsample: 16x18, downsample=4"):
        new_codec(CodecSpec(), (1, 16, 18))
