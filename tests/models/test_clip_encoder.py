import pytest
import torch

from pipeline.models.clip_encoder import (
    ClipEncoder,
    ClipEncoderSpec,
    clip_encoder_digest,
    load_clip_encoder,
    save_clip_encoder,
)

SMALL = ClipEncoderSpec(width=4, feature_dim=8)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return ClipEncoder(SMALL).eval()


def test_features_are_standardised_by_the_reference(rng, encoder):
    video = torch.rand(3, 8, 1, 16, 16, generator=rng) * 2 - 1
    raw = encoder.raw_features(video)
    assert torch.equal(encoder(video), raw)
    encoder.mean.fill_(0.5)
    encoder.std.fill_(2.0)
    assert torch.equal(encoder(video), (raw - 0.5) / 2)


def test_features_of_a_clip_do_not_depend_on_its_neighbours(rng, encoder):
    video = torch.rand(5, 8, 1, 16, 16, generator=rng) * 2 - 1
    torch.testing.assert_close(encoder(video)[3:4], encoder(video[3:4]), rtol=1e-5, atol=1e-6)


def test_a_saved_encoder_is_read_back_frozen_with_its_statistics(rng, tmp_path, encoder):
    encoder.mean.fill_(0.25)
    save_clip_encoder(encoder, tmp_path, {"split": "metric"})
    loaded = load_clip_encoder(tmp_path)
    video = torch.rand(2, 8, 1, 16, 16, generator=rng) * 2 - 1
    assert torch.equal(loaded(video), encoder(video))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    before = clip_encoder_digest(tmp_path)
    encoder.mean.fill_(0.5)
    save_clip_encoder(encoder, tmp_path, {"split": "metric"})
    assert clip_encoder_digest(tmp_path) != before  # the reference's statistics are part of the network


@pytest.mark.parametrize(("num_frames", "frame_size"), [(2, 8), (8, 16), (16, 32)])
def test_heads_have_a_number_for_every_frame(rng, num_frames, frame_size):
    spec = ClipEncoderSpec(num_frames=num_frames, frame_size=frame_size, width=4, feature_dim=8)
    encoder = ClipEncoder(spec)
    raw = encoder.raw_features(torch.rand(2, num_frames, 1, frame_size, frame_size, generator=rng))
    shapes = {name: tuple(head.shape) for name, head in encoder.label_predictions(raw).items()}
    assert shapes == {"class": (2, 10), "position": (2, 2 * num_frames), "velocity": (2, 2 * num_frames)}
    assert encoder.corruption_strengths(raw).shape == (2, 5)


def test_clips_of_another_shape_are_refused(encoder):
    with pytest.raises(ValueError, match=r"\(8, 1, 16, 16\), got \(9, 1, 16, 16\)"):
        encoder(torch.zeros(1, 9, 1, 16, 16))
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        ClipEncoderSpec(frame_size=20)
