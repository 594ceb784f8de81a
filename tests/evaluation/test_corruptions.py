import numpy as np
import pytest
import torch

from pipeline.data.store import to_video
from pipeline.evaluation.corruptions import (
    CORRUPTIONS,
    PRETEXT,
    SPEEDS,
    corrupted_sets,
    cut,
    freeze,
    ghost,
    jitter,
    shuffle,
    slow,
    spoil,
)


@pytest.fixture
def video(rng):
    return torch.rand(6, 8, 1, 16, 16, generator=rng) * 2 - 1


@pytest.mark.parametrize("family", CORRUPTIONS)
def test_strength_zero_changes_nothing(rng, video, family):
    spoilt = CORRUPTIONS[family].apply(video, torch.zeros(6), rng)
    torch.testing.assert_close(spoilt, video, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", CORRUPTIONS)
def test_greater_strength_moves_clips_further(video, family):
    changes = [
        float(
            (corruption.apply(video, torch.full((6,), float(level)), torch.Generator().manual_seed(1)) - video)
            .abs()
            .mean()
        )
        for corruption in [CORRUPTIONS[family]]
        for level in corruption.levels
    ]
    assert changes == sorted(changes) or family == "shuffle"  # a second swap may undo the first
    assert changes[-1] > changes[0]


def test_shuffle_keeps_every_frame(rng, video):
    shuffled = shuffle(video, torch.tensor([0.0, 1, 2, 4, 8, 32]), rng)
    assert torch.equal(shuffled[0], video[0])
    assert torch.equal(shuffled.sum(dim=(2, 3, 4)).sort(dim=1).values, video.sum(dim=(2, 3, 4)).sort(dim=1).values)


def test_freeze_and_slow_show_the_frames_they_should(rng):
    video = torch.arange(8.0)[None, :, None, None, None]
    assert freeze(video, torch.tensor([4 / 7]), rng).flatten().tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
    assert freeze(video, torch.ones(1), rng).flatten().tolist() == [0] * 8
    assert slow(video, torch.ones(1), rng).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_ghost_is_a_geometric_average(rng):
    video = torch.tensor([1.0, 0, 0, 0])[None, :, None, None, None]
    assert ghost(video, torch.tensor([0.5]), rng).flatten().tolist() == [1, 0.5, 0.25, 0.125]


def test_cut_continues_as_another_clip(rng, video):
    spoilt = cut(video, torch.ones(6), rng)
    assert torch.equal(spoilt[:, :4], video[:, :4])
    assert torch.equal(spoilt[1:, 4:], video[:-1, 4:])


def test_jitter_only_rolls_frames(rng, video):
    spoilt = jitter(video, torch.ones(6), rng)
    assert torch.equal(spoilt.flatten(2).sort(dim=2).values, video.flatten(2).sort(dim=2).values)
    assert not torch.equal(spoilt, video)


def test_pretext_names_what_was_done(rng):
    video = torch.rand(64, 8, 1, 16, 16, generator=rng) * 2 - 1
    spoilt, strengths = spoil(video, rng)
    assert strengths.shape == (64, len(PRETEXT))
    assert ((strengths > 0).sum(dim=1) <= 1).all()
    untouched = strengths.sum(dim=1) == 0
    assert untouched.any()
    assert torch.equal(spoilt[untouched], video[untouched])


def test_sets_of_every_family_have_five_levels_and_the_training_length(rng, store):
    frames, classes = np.array(store.clips("test")[:32]), store.labels("test")["class"][:32, 0]
    sets = list(corrupted_sets(frames, classes, 8, rng))
    assert {family for family, _, _ in sets} == {*CORRUPTIONS, "mode_drop", "speed"}
    assert len(sets) == 5 * 12
    assert {video.shape for _, _, video in sets} == {(32, 8, 1, 16, 16)}
    fastest = next(video for family, level, video in sets if (family, level) == ("speed", SPEEDS[-1]))
    expected = torch.from_numpy(frames[:, :16:2].copy()).float() / 127.5 - 1
    torch.testing.assert_close(fastest, expected)


def test_no_more_classes_are_dropped_than_there_are(rng, store):
    frames, classes = np.array(store.clips("test")[:9]), np.repeat([0, 1, 2], 3)
    dropped = {
        level: video for family, level, video in corrupted_sets(frames, classes, 8, rng) if family == "mode_drop"
    }
    assert list(dropped) == [1, 2]
    firsts = {clip.numpy().tobytes() for clip in to_video(frames[:3, :8])}
    assert {clip.numpy().tobytes() for clip in dropped[2]} <= firsts


def test_short_clips_have_no_speed_family(rng, store):
    frames, classes = np.array(store.clips("test")[:8, :9]), store.labels("test")["class"][:8, 0]
    assert "speed" not in {family for family, _, _ in corrupted_sets(frames, classes, 8, rng)}
