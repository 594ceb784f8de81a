import numpy as np
import pytest

from pipeline.data import SOURCES
from pipeline.data.moving_digits import MovingDigits, digit_images, placed, turned
from pipeline.data.store import SPLITS
from pipeline.streams import numpy_stream


def draw(source: MovingDigits, *, split: str = "train", num_clips: int = 300, num_frames: int = 24, seed: int = 0):
    return source.clips(split, num_clips, num_frames, numpy_stream(seed, "test"))


def centroid(frames: np.ndarray) -> np.ndarray:
    """Centre of mass (y, x) of frames (..., H, W)."""
    grid = np.arange(frames.shape[-1])
    mass = frames.sum((-1, -2))
    return np.stack([(frames.sum(-1) * grid).sum(-1), (frames.sum(-2) * grid).sum(-1)], -1) / mass[..., None]


def test_registry_name_is_the_module_name():
    assert SOURCES
    for name, source in SOURCES.items():
        assert source.__module__ == f"pipeline.data.{name}"


def test_images_are_the_1797_real_digits():
    images, classes = digit_images(8)
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    assert np.bincount(classes).min() > 170


def test_splits_share_no_image_and_leave_none_out():
    split_images = [set(MovingDigits().split_images(split).tolist()) for split in SPLITS]
    assert sum(len(images) for images in split_images) == 1797
    assert set.union(*split_images) == set(range(1797))
    assert [len(images) for images in split_images] == [1078, 449, 270]


def test_clips_show_only_images_of_their_split():
    for split in SPLITS:
        shown = draw(MovingDigits(), split=split, num_frames=2).labels["image"]
        assert set(shown.ravel().tolist()) <= set(MovingDigits().split_images(split).tolist())


def test_shift_by_whole_pixels_is_a_roll():
    image = digit_images(8)[0][:5]
    at_corner = placed(image, np.zeros((5, 2)), 16)
    shifted = placed(image, np.tile([3.0, 5.0], (5, 1)), 16)
    assert np.array_equal(at_corner[:, :8, :8], image)
    assert np.array_equal(shifted, np.roll(at_corner, (3, 5), axis=(1, 2)))


def test_placement_between_pixels_keeps_mass_and_moves_the_centroid_exactly(rng_numpy):
    image = digit_images(8)[0][:200]
    position = rng_numpy.uniform(0, 8, (200, 2))
    frames = placed(image, position, 16)
    assert np.allclose(frames.sum((1, 2)), image.sum((1, 2)), rtol=1e-5)
    assert np.allclose(centroid(frames), centroid(image) + position, atol=1e-4)


def test_digits_stay_inside_the_walls():
    labels = draw(MovingDigits(speed_min=2.0, speed_max=8.0)).labels
    assert labels["position"].min() >= 0
    assert labels["position"].max() <= 8
    assert labels["bounce"].mean() > 0.3


def test_position_advances_by_velocity_unless_a_wall_was_met():
    labels = draw(MovingDigits(turn_probability=0.2)).labels
    step = labels["position"][:, 1:] - labels["position"][:, :-1]
    free = ~labels["bounce"][:, 1:]
    assert np.allclose(step[free], labels["velocity"][:, :-1][free], atol=1e-5)
    assert not np.allclose(step[~free], labels["velocity"][:, :-1][~free], atol=1e-3)


def test_velocity_changes_only_by_bounces_and_turns():
    labels = draw(MovingDigits(turn_probability=0.2)).labels
    before, after = labels["velocity"][:, :-1], labels["velocity"][:, 1:]
    bounce, turn = labels["bounce"][:, 1:], labels["turn"][:, 1:]
    assert np.array_equal(after[~bounce & (turn == 0)], before[~bounce & (turn == 0)])
    turns = ~bounce & (turn != 0)
    assert np.abs((after[turns] * before[turns]).sum(-1)).max() < 1e-5
    assert 0.18 < (turn != 0).mean() < 0.22


def test_a_bounce_points_inwards_in_a_random_direction():
    labels = draw(MovingDigits()).labels
    start, velocity, bounce = labels["position"][:, :-1], labels["velocity"], labels["bounce"][:, 1:]
    ahead = start[bounce] + velocity[:, :-1][bounce]
    after = velocity[:, 1:][bounce]
    assert (after[ahead < 0] > 0).all()
    assert (after[ahead > 8] < 0).all()
    speed = np.linalg.norm(after, axis=-1)
    assert 0.499 < speed.min() < 0.52
    assert 1.48 < speed.max() < 1.501
    one_wall = ((ahead < 0) | (ahead > 8)).sum(-1) == 1
    along = np.where((ahead < 0) | (ahead > 8), 0, after)[one_wall].sum(-1)
    assert abs((along > 0).mean() - 0.5) < 0.1


def test_left_turn_of_a_rightward_digit_is_upwards():
    rightwards = np.array([[0.0, 1.0]])
    assert turned(rightwards, np.array([1])).tolist() == [[-1.0, 0.0]]
    assert turned(rightwards, np.array([-1])).tolist() == [[1.0, 0.0]]
    assert turned(rightwards, np.array([0])).tolist() == rightwards.tolist()


def test_frames_show_the_labelled_image_at_the_labelled_position():
    clips = draw(MovingDigits(), num_clips=40)
    images, classes = digit_images(8)
    assert np.array_equal(clips.labels["class"], classes[clips.labels["image"]])
    expected = placed(images[clips.labels["image"][:, 0]], clips.labels["position"][:, 7, 0].astype(float), 16)
    assert np.abs(clips.frames[:, 7, 0] - expected).max() < 0.51


def test_two_digits_are_the_clipped_sum_of_each():
    clips = draw(MovingDigits(num_digits=2), num_clips=40, num_frames=3)
    images = digit_images(8)[0]
    parts = [placed(images[clips.labels["image"][:, k]], clips.labels["position"][:, 2, k], 16) for k in (0, 1)]
    assert np.abs(clips.frames[:, 2, 0] - np.clip(parts[0] + parts[1], 0, 255)).max() < 0.51


def test_the_law_of_the_first_frames_does_not_depend_on_clip_length():
    short = draw(MovingDigits(turn_probability=0.1), num_clips=4000, num_frames=4, seed=1).labels
    long = draw(MovingDigits(turn_probability=0.1), num_clips=4000, num_frames=12, seed=2).labels
    for name in ("bounce", "turn"):
        rates = [(labels[name][:, :4] != 0).mean(axis=(0, 2)) for labels in (short, long)]
        assert np.abs(rates[0] - rates[1]).max() < 0.03


def test_digits_of_another_size_fill_it():
    source = MovingDigits(frame_size=24, digit_size=12)
    assert source.clips("test", 3, 2, numpy_stream(0, "test")).frames.shape == (3, 2, 1, 24, 24)
    assert digit_images(12)[0].shape == (1797, 12, 12)


def test_equal_streams_give_equal_clips_and_others_do_not():
    first, again, other = (draw(MovingDigits(), num_clips=20, seed=seed).frames for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"digit_size": 3}, "digit_size must be at least 4, got 3"),
        ({"frame_size": 8}, "frame_size must be above digit_size: frame_size=8, digit_size=8"),
        ({"num_digits": 0}, "num_digits must be at least 1, got 0"),
        ({"speed_min": 0.0}, "speed_min must be above 0 and at most speed_max: speed_min=0.0, speed_max=1.5"),
        ({"speed_min": 2.0}, "speed_min must be above 0 and at most speed_max: speed_min=2.0, speed_max=1.5"),
        (
            {"speed_max": 9.0},
            "speed_max must be at most frame_size - digit_size: speed_max=9.0, frame_size=16, digit_size=8",
        ),
        ({"turn_probability": 1.5}, r"turn_probability must be in \[0, 1\], got 1.5"),
        ({"train_share": 0.95}, r"train_share must be in \[0.05, 0.9\], got 0.95"),
        ({"metric_share": 0.0}, r"metric_share must be in \[0.05, 0.9\], got 0.0"),
        (
            {"train_share": 0.8, "metric_share": 0.2},
            r"train_share \+ metric_share must be at most 0.95: train_share=0.8, metric_share=0.2",
        ),
        ({"frames_per_s": 0.0}, "frames_per_s must be above 0, got 0.0"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_rule_and_value(parameters, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MovingDigits(**parameters)


@pytest.fixture
def rng_numpy() -> np.random.Generator:
    return np.random.default_rng(0)
