import numpy as np
import pytest

from pipeline.data.moving_digits import MovingDigits
from pipeline.evaluation.kinematics import centroids, compare_motion, motion, wasserstein
from pipeline.streams import numpy_stream


def blob(path, size=16):
    """One bright 2x2 square at integer corners (y, x), by frame."""
    frames = np.zeros((1, len(path), 1, size, size), np.uint8)
    for t, (y, x) in enumerate(path):
        frames[0, t, 0, y : y + 2, x : x + 2] = 200
    return frames


def test_speed_of_a_moving_blob_is_exact():
    clips = blob([(0, 1), (3, 5), (6, 9), (9, 13)])
    assert np.array_equal(centroids(clips)[0], [(0.5, 1.5), (3.5, 5.5), (6.5, 9.5), (9.5, 13.5)])
    result = motion(clips)
    assert result.speeds.tolist() == [5, 5, 5]
    assert result.bounce_rate == 0


def test_a_reversed_component_is_a_bounce():
    result = motion(blob([(2, 0), (3, 3), (4, 6), (5, 3), (6, 0)]))
    assert result.bounce_rate == pytest.approx(1 / 3)  # in the middle one of three inner frames


def test_motion_energy_is_the_mean_change_of_a_pixel():
    clips = blob([(0, 0), (4, 4), (4, 4)])
    assert motion(clips).motion_energy == pytest.approx((8 * 200 / 255) / (2 * 16 * 16))


def test_speed_of_digits_is_that_of_their_labels():
    drawn = MovingDigits(speed_min=1.25, speed_max=1.25).clips("test", 40, 6, numpy_stream(0, "test"))
    steps = np.diff(drawn.labels["position"][:, :, 0], axis=1)
    speeds = motion(drawn.frames).speeds.reshape(40, 5)
    assert np.allclose(speeds, np.linalg.norm(steps, axis=-1), atol=0.03)  # rounding to uint8


def test_a_black_frame_has_its_centre_in_the_middle():
    assert centroids(np.zeros((1, 1, 1, 8, 6), np.uint8)).tolist() == [[[3.5, 2.5]]]


def test_wasserstein_of_a_shift_is_its_length():
    values = np.array([3.0, 1.0, 2.0])
    assert wasserstein(values, values[::-1] + 0.75) == 0.75
    with pytest.raises(ValueError, match="3 and 2"):
        wasserstein(values, values[:2])


def test_faster_clips_are_as_far_as_they_are_faster():
    slow, fast = (blob([(4, x) for x in range(0, 4 * step, step)]) for step in (1, 3))
    result = compare_motion(fast, slow)
    assert result["speed_w1"] == 2
    assert (result["mean_speed"], result["mean_speed_real"]) == (3, 1)
    assert compare_motion(slow, slow)["speed_w1"] == 0
