import pytest
import torch

from pipeline.models.digit_reader import (
    DigitReader,
    DigitReaderSpec,
    digit_reader_digest,
    load_digit_reader,
    save_digit_reader,
)


@pytest.fixture
def reader(rng):
    torch.manual_seed(0)
    reader = DigitReader(DigitReaderSpec(width=4, feature_dim=8))
    reader.features(torch.rand(64, 1, 16, 16, generator=rng))  # running statistics that differ from their start
    return reader.eval()


def test_a_saved_reader_is_read_back_frozen_and_equal(rng, tmp_path, reader):
    save_digit_reader(reader, tmp_path, {"split": "metric"})
    loaded = load_digit_reader(tmp_path)
    frames = torch.rand(5, 1, 16, 16, generator=rng) * 2 - 1
    assert torch.equal(loaded.features(frames), reader.features(frames))
    assert torch.equal(loaded.read(frames), reader.class_logits(reader.features(frames)).argmax(1))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_checksum_changes_with_the_weights(tmp_path, reader):
    digests = []
    for shift in (0.0, 0.0, 1e-3):
        with torch.no_grad():
            reader.class_head.bias += shift
        save_digit_reader(reader, tmp_path, {})
        digests.append(digit_reader_digest(tmp_path))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("size", [8, 16, 32])
def test_features_have_one_size_at_every_frame_size(rng, reader, size):
    assert reader.features(torch.rand(3, 1, size, size, generator=rng)).shape == (3, 8)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        DigitReaderSpec(width=0)
