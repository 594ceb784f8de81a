import numpy as np
import pytest
import torch

from pipeline.evaluation.metric_networks import (
    centre_of_mass,
    clip_encoder_spec,
    metric_clips,
    read_classes,
    train_clip_encoder,
    train_digit_reader,
    warped,
)
from pipeline.models.digit_reader import DigitReaderSpec


@pytest.fixture
def data(store):
    return metric_clips(np.asarray(store.clips("metric")), store.labels("metric"))


def test_labels_are_shares_and_standardised_means(data, store):
    classes = store.labels("metric")["class"][:, 0]
    assert torch.equal(data.class_share.argmax(dim=1), torch.from_numpy(classes))
    assert (data.class_share.sum(dim=1) == 1).all()
    assert data.position.std().item() == pytest.approx(1, abs=1e-5)
    assert data.velocity.mean().item() == pytest.approx(0, abs=1e-5)


def test_several_digits_share_a_clip():
    labels = {
        "class": np.array([[3, 3], [1, 7]]),
        "position": np.zeros((2, 4, 2, 2)),
        "velocity": np.ones((2, 4, 2, 2)),
    }
    share = metric_clips(np.zeros((2, 4, 1, 16, 16), np.uint8), labels).class_share
    assert share[0, 3] == 1
    assert share[1, [1, 7]].tolist() == [0.5, 0.5]


def test_missing_labels_are_named():
    with pytest.raises(ValueError, match="missing class, velocity"):
        metric_clips(np.zeros((2, 4, 1, 16, 16), np.uint8), {"position": np.zeros((2, 4, 1, 2))})


def test_encoder_training_repeats_and_descends(finish, data):
    def run():
        spec = clip_encoder_spec(data.frames, num_frames=8, width=4)
        steps = train_clip_encoder(spec, data, num_steps=60, batch_size=16, learning_rate=4e-3, seed=0)
        return finish(steps)

    (first, network), (_, again) = run(), run()
    assert [step for step, _ in first] == list(range(1, 61))
    for loss in ("position_loss", "corruption_loss"):
        assert np.mean([row[loss] for _, row in first[-10:]]) < 0.8 * np.mean([row[loss] for _, row in first[:10]])
    state, other = network.state_dict(), again.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_reader_training_repeats_and_reads_what_it_saw(finish, data):
    def run():
        steps = train_digit_reader(
            DigitReaderSpec(width=8), data, num_steps=80, batch_size=64, learning_rate=4e-3, seed=0
        )
        return finish(steps)[1]

    reader, again = run(), run()
    state, other = reader.state_dict(), again.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)
    read = read_classes(reader, data.frames[:, 3], batch_size=150)
    assert (read == data.class_share.argmax(dim=1)).float().mean() > 0.5  # chance is 0.1


def test_centre_of_mass_of_a_pixel():
    frames = -torch.ones(2, 1, 16, 16)
    frames[0, 0, 3, 12] = 0.5
    assert centre_of_mass(frames).tolist() == [[(2 * 3 + 1) / 16 - 1, (2 * 12 + 1) / 16 - 1], [0, 0]]


def test_warping_keeps_place_and_about_the_light(rng, data):
    frames = torch.from_numpy(data.frames[:64, 0].copy()).float() / 127.5 - 1
    spoilt = warped(frames, rng)
    assert (centre_of_mass(spoilt) - centre_of_mass(frames)).abs().max() < 1 / 16  # half a pixel
    ratio = (spoilt + 1).sum(dim=(1, 2, 3)) / (frames + 1).sum(dim=(1, 2, 3))
    assert 0.7 < ratio.min() < 1 < ratio.max() < 1.4


def test_frames_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="H=16, W=24"):
        clip_encoder_spec(np.zeros((1, 8, 1, 16, 24), np.uint8), num_frames=8, width=4)
