import numpy as np
import pytest
import torch

from pipeline.evaluation.corruptions import drift_noise
from pipeline.evaluation.drift import (
    distance_curve,
    frame_curve,
    frame_features,
    slope,
    window_features,
    window_starts,
)
from pipeline.evaluation.extractors import InDomainFeatures
from pipeline.models.digit_reader import load_digit_reader


def test_windows_overlap_by_half():
    assert list(window_starts(16, 8)) == [0, 4, 8]
    assert list(window_starts(8, 8)) == [0]
    with pytest.raises(ValueError, match="T=7, window=8"):
        window_starts(7, 8)


def test_slope_is_that_of_a_line():
    x = np.array([0.0, 4.0, 8.0])
    assert slope(x, 3 - 0.25 * x) == pytest.approx(-0.25)
    assert slope(x[:1], x[:1]) == 0


@pytest.fixture
def halves(store):
    test = torch.from_numpy(np.array(store.clips("test")))
    return test[:256], test[256:]


def spoilt(clips, rng):
    video = drift_noise(clips / 127.5 - 1, torch.full((len(clips),), 0.4), rng)
    return ((video + 1) * 127.5).round().to(torch.uint8)


def test_frame_curve_is_the_floor_for_real_clips_and_rises_with_growing_noise(rng, halves, untrained_dir):
    reader = load_digit_reader(untrained_dir)
    reference, held_out = (frame_features(reader, clips) for clips in halves)
    real = frame_curve(held_out, reference, held_out)
    assert real.position == tuple(range(1, 17))
    assert real.distance == real.floor
    assert real.slope == 0
    drifting = frame_curve(frame_features(reader, spoilt(halves[1], rng)), reference, held_out)
    assert drifting.distance[0] == drifting.floor[0]  # the first frame has no noise
    assert drifting.distance[15] > drifting.distance[8] > 2 * max(drifting.floor)
    assert drifting.slope > 0


def test_windowed_fvd_is_the_floor_for_real_clips_and_rises_with_growing_noise(rng, halves, untrained_dir):
    features = InDomainFeatures(untrained_dir)
    reference, held_out, drifting = (
        window_features(features, clips, 8) for clips in (*halves, spoilt(halves[1], rng))
    )
    starts = window_starts(16, 8)
    real = distance_curve(starts, held_out, reference, held_out)
    assert real.position == (1, 5, 9)
    assert real.distance == real.floor
    curve = distance_curve(starts, drifting, reference, held_out)
    assert list(curve.distance) == sorted(curve.distance)
    assert curve.slope > 0


def test_frame_features_do_not_depend_on_the_clip_around_the_frame(halves, untrained_dir):
    reader = load_digit_reader(untrained_dir)
    clips = halves[0][:3]
    together = frame_features(reader, clips)
    alone = frame_features(reader, clips[1:2, 5:6])
    torch.testing.assert_close(together[1, 5], alone[0, 0], rtol=1e-5, atol=1e-6)
