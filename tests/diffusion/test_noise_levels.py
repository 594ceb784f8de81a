"""How noise levels are drawn."""

import pytest
import torch

from pipeline.diffusion.noise_levels import clean_at_random, independent_levels, listed_levels, shared_levels


def test_shared_levels_are_one_a_clip_in_their_range(rng):
    t = shared_levels(2_000, 5, low=0.2, high=0.6, rng=rng)
    assert (t == t[:, :1]).all()
    assert t.min() >= 0.2
    assert t.max() <= 0.6
    assert abs(t[:, 0].mean() - 0.4) < 0.01


def test_independent_levels_are_uncorrelated_between_chunks_and_equal_inside(rng):
    t = independent_levels(20_000, 6, chunk_len=2, rng=rng)
    assert (t[:, 0::2] == t[:, 1::2]).all()
    correlation = torch.corrcoef(t[:, 0::2].T)
    assert (correlation - torch.eye(3)).abs().max() < 0.03


def test_listed_levels_take_every_level_equally_often(rng):
    t = listed_levels(10_000, 4, (1.0, 0.5, 0.25), rng=rng)
    for level in (1.0, 0.5, 0.25):
        assert abs((t == level).float().mean() - 1 / 3) < 0.01


def test_clean_at_random_cleans_its_share_and_leaves_the_rest(rng):
    t = independent_levels(10_000, 4, rng=rng)
    cleaned = clean_at_random(t, 0.3, first=0.1, rng=rng)
    assert abs((cleaned[:, 1:] == 0).float().mean() - 0.3) < 0.01
    assert abs((cleaned[:, 0] == 0).float().mean() - 0.1) < 0.01
    assert torch.equal(cleaned[cleaned > 0], t[cleaned > 0])


def test_seven_frames_in_chunks_of_three_are_refused(rng):
    with pytest.raises(ValueError, match="clip length must be a multiple of chunk_len: T=7, chunk_len=3"):
        independent_levels(1, 7, chunk_len=3, rng=rng)
