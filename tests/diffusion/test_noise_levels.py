"""How noise levels are drawn."""

from fractions import Fraction

import pytest
import torch

from pipeline.diffusion import cube
from pipeline.diffusion.noise_levels import (
    NOISE_LEVELS,
    AnyOrder,
    Independent,
    NoiseLevels,
    PathUniform,
    Pyramid,
    Shared,
    TeacherForcing,
    independent_levels,
    listed_levels,
    shared_levels,
)

LAWS = {name: PathUniform(6) if law is PathUniform else law() for name, law in NOISE_LEVELS.items()}
GRID = {
    "shared": (Shared(3), cube.lockstep(2, 3)),
    "independent": (Independent(num_levels=3), cube.uniform_moves(2, 3, lowest=1)),
    "independent_with_clean": (Independent(clean_probability=1 / 4, num_levels=3), cube.uniform_moves(2, 3)),
    "teacher_forcing": (TeacherForcing(3), cube.teacher_forcing(2, 3)),
    "any_order": (AnyOrder(3), cube.any_order(2, 3)),
    "pyramid_0": (Pyramid(0.0, 3), cube.lockstep(2, 3)),
    "pyramid_1/2": (Pyramid(0.5, 3), cube.pyramid(2, 3, Fraction(3, 2))),
    "pyramid_1": (Pyramid(1.0, 3), cube.teacher_forcing(2, 3)),
    "random_pyramid": (Pyramid(num_levels=3), cube.random_pyramid(2, 3)),
    "path_uniform": (PathUniform(3), cube.uniform_paths(2, 3)),
}


def kolmogorov(draws, law):
    """The largest gap between draws and a distribution function: above 1.95 once in a thousand samples."""
    ordered = draws.flatten().double().sort().values
    ranks = torch.arange(1, len(ordered) + 1) / len(ordered)
    return (ranks - law(ordered)).abs().max() * len(ordered) ** 0.5


@pytest.mark.parametrize("name", GRID)
def test_law_on_the_grid_has_the_frequencies_of_the_enumerated_cube(name, rng):
    law, exact = GRID[name]
    t, counts = law.draw(40_000, 2, rng=rng)
    states = (3 * t).round().long()
    assert torch.equal(states / 3, t)
    measured = torch.zeros(4, 4, 2).index_put((states[:, 0], states[:, 1]), counts, accumulate=True)
    measured /= measured.sum()
    expected = torch.zeros(4, 4, 2)
    for (state, frame), often in cube.frame_visits(exact).items():
        expected[*state, frame] = float(often)
    expected /= expected.sum()
    assert torch.equal(measured > 0, expected > 0)
    assert (measured - expected).abs().max() < 5e-3


@pytest.mark.parametrize("name", LAWS)
def test_every_law_gives_levels_that_chunks_share_and_clean_ones_without_loss(name, rng):
    t, counts = LAWS[name].draw(2_000, 6, chunk_len=2, rng=rng)
    assert isinstance(LAWS[name], NoiseLevels)
    for values in (t, counts):
        assert values.shape == (2_000, 6)
        assert values.dtype == torch.float32
        assert torch.equal(values[:, 0::2], values[:, 1::2])
    assert t.min() >= 0
    assert t.max() <= 1
    assert (counts[t == 0] == 0).all()
    assert (counts >= 0).all()
    assert (counts.sum(1) > 0).all()


@pytest.mark.parametrize("name", LAWS)
def test_every_law_brings_every_frame_through_all_levels_alike(name, rng):
    """A path takes each frame down through each level once: as they count, levels are uniform, frame by frame."""
    t, counts = LAWS[name].draw(60_000, 3, rng=rng)
    for f in range(3):
        sixths = (6 * t[:, f]).ceil().long().clamp(1) - 1
        share = torch.zeros(6).index_add(0, sixths, counts[:, f]) / counts[:, f].sum()
        assert (share - 1 / 6).abs().max() < 8e-3
        assert abs(counts[:, f].sum() / counts.sum() - 1 / 3) < 8e-3


@pytest.mark.parametrize("name", LAWS)
def test_every_law_repeats_itself_from_the_same_generator(name):
    one, other = (LAWS[name].draw(8, 4, rng=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.t, other.t)
    assert torch.equal(one.counts, other.counts)
    assert not torch.equal(one.t, LAWS[name].draw(8, 4, rng=torch.Generator().manual_seed(4)).t)


def test_shared_level_is_one_a_clip_and_uniform(rng):
    t, counts = Shared().draw(20_000, 5, rng=rng)
    assert (t == t[:, :1]).all()
    assert kolmogorov(t[:, 0], lambda x: x) < 1.95
    assert (counts == 1).all()


def test_independent_levels_are_uniform_and_uncorrelated(rng):
    t, counts = Independent().draw(20_000, 6, chunk_len=2, rng=rng)
    assert kolmogorov(t[:, ::2], lambda x: x) < 1.95
    assert (torch.corrcoef(t[:, ::2].T) - torch.eye(3)).abs().max() < 0.03
    assert (counts == 1).all()


def test_independent_levels_leave_their_share_of_chunks_clean(rng):
    t, counts = Independent(clean_probability=0.3, first_clean_probability=0.1).draw(20_000, 4, rng=rng)
    assert abs((t[:, 1:] == 0).float().mean() - 0.3) < 0.01
    assert abs((t[:, 0] == 0).float().mean() - 0.1) < 0.01
    assert torch.equal(counts, (t > 0).float())
    assert kolmogorov(t[t > 0], lambda x: x) < 1.95


def test_independent_law_draws_levels_first_then_which_are_clean():
    """The order of the draws is part of a run: another one trains another network from the same seed."""
    law = Independent(clean_probability=0.5, first_clean_probability=0.25)
    t, _ = law.draw(64, 8, chunk_len=2, rng=torch.Generator().manual_seed(7))
    rng = torch.Generator().manual_seed(7)
    levels = torch.rand(64, 4, generator=rng)
    is_clean = torch.rand(64, 4, generator=rng) < torch.tensor([0.25, 0.5, 0.5, 0.5])
    assert torch.equal(t, levels.masked_fill(is_clean, 0).repeat_interleave(2, 1))


def test_listed_levels_are_drawn_equally_often_and_left_clean_as_often(rng):
    t, counts = Independent(clean_probability=0.4).draw_listed(20_000, 4, (1.0, 0.5, 0.25), chunk_len=2, rng=rng)
    assert torch.equal(t[:, ::2], t[:, 1::2])
    for level, share in ((1.0, 0.2), (0.5, 0.2), (0.25, 0.2), (0.0, 0.4)):
        assert abs((t == level).float().mean() - share) < 0.01
    assert torch.equal(counts, (t > 0).float())


def test_teacher_forcing_has_clean_chunks_before_and_noise_after_the_one_that_counts(rng):
    t, counts = TeacherForcing().draw(20_000, 4, rng=rng)
    made = counts.argmax(1, keepdim=True)
    index = torch.arange(4)
    assert torch.equal(counts, (index == made).float())
    assert (t[index < made] == 0).all()
    assert (t[index > made] == 1).all()
    assert kolmogorov(t.gather(1, made), lambda x: x) < 1.95
    assert (made.flatten().bincount() / 20_000 - 1 / 4).abs().max() < 0.015


def test_any_order_is_teacher_forcing_of_chunks_in_every_order(rng):
    t, counts = AnyOrder().draw(30_000, 3, rng=rng)
    assert (counts.sum(1) == 1).all()
    ordered, _ = t.sort(1)
    where = counts.argmax(1, keepdim=True)
    assert kolmogorov(t.gather(1, where), lambda x: x) < 1.95
    rest = t.masked_select(counts == 0)
    assert set(rest.unique().tolist()) == {0.0, 1.0}
    # 1 of 3 clips has 0, 1 or 2 clean chunks, and which they are is uniform
    clean = ((t == 0).long() * torch.tensor([1, 2, 4])).sum(1)
    share = torch.bincount(clean, minlength=8) / 30_000
    expected = torch.tensor([3.0, 1, 1, 1, 1, 1, 1, 0]) / 9
    assert (share - expected).abs().max() < 0.015
    assert (ordered.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("slope", [0.0, 0.25, 0.6, 1.0])
def test_pyramid_is_a_uniform_moment_of_its_cascade(slope, rng):
    t, counts = Pyramid(slope).draw(20_000, 4, rng=rng)
    length = 1 + 3 * slope
    inside = (t > 0) & (t < 1)
    assert torch.equal(counts > 0, inside)
    assert (counts[inside] == 1).all()
    both = inside[:, 1:] & inside[:, :-1]
    assert (t.diff(dim=1)[both] - slope).abs().max() < 1e-6 if slope < 1 else not both.any()
    for f in range(4):
        assert kolmogorov(t[inside[:, f], f], lambda x: x) < 1.95
        assert abs(inside[:, f].float().mean() - 1 / length) < 0.015
        assert abs((t[:, f] == 0).float().mean() - (length - 1 - slope * f) / length) < 0.015


def test_random_pyramid_counts_every_slope_alike(rng):
    """The length of a cascade by the share of its chunks on their way is 1: so it is on average at every slope."""
    t, counts = Pyramid().draw(100_000, 3, rng=rng)
    inside = counts > 0
    length = counts.max(1).values
    assert kolmogorov((length - 1) / 2, lambda x: x) < 1.95
    for low in (1.0, 1.5, 2.0, 2.5):
        near = (length >= low) & (length < low + 0.5)
        assert abs(counts[near].mean() - 1) < 0.015
    assert torch.equal(inside, (t > 0) & (t < 1))


def test_pyramid_takes_the_whole_part_of_its_lag_as_written_in_decimals(rng):
    t, _ = Pyramid(0.29, 100).draw(20_000, 2, rng=rng)  # .29 * 100 is 28.999999999999996 in floating point
    gap = (100 * t.diff(dim=1)).round()[(t[:, :1] > 0) & (t[:, 1:] < 1)]
    assert (gap == 29).all()


def test_path_uniform_draws_each_of_24_moves_as_often_as_the_20_paths_take_it(rng):
    num_draws = 60_000
    t, counts = PathUniform(3).draw(num_draws, 2, rng=rng)
    moving = torch.multinomial(counts, 1, generator=rng).flatten()
    states = (3 * t).round().long()
    measured = torch.zeros(4, 4, 2).index_put((*states.T, moving), torch.ones(num_draws), accumulate=True)
    chi_squared = 0.0
    for move, often in cube.uniform_paths(2, 3).items():
        expected = num_draws * float(often) / 6
        chi_squared += (measured[*move.start, move.frames[0]].item() - expected) ** 2 / expected
    assert measured.sum() == num_draws
    assert chi_squared < 50  # 23 degrees of freedom: exceeded once in a thousand


def test_path_uniform_counts_by_the_levels_that_are_left_and_one_on_average(rng):
    t, counts = PathUniform(5).draw(1_000, 6, chunk_len=2, rng=rng)
    assert torch.allclose(counts.mean(1), torch.ones(1_000))
    assert torch.allclose(counts * t.sum(1, keepdim=True), 6 * t, atol=1e-5)


def test_many_levels_bring_path_uniform_to_the_diagonal_and_not_the_independent_law(rng):
    def far_apart(law, num_draws):
        return ((law.draw(num_draws, 2, rng=rng).t.diff(dim=1)).abs() > 0.25).float().mean().item()

    assert far_apart(Independent(), 40_000) == pytest.approx(9 / 16, abs=0.01)
    assert far_apart(PathUniform(10), 40_000) == pytest.approx(0.172, abs=0.008)
    assert far_apart(PathUniform(1000), 500) == 0
    t, _ = PathUniform(1000).draw(1_000, 2, rng=rng)
    half_way = (t.sum(1) - 1).abs() < 0.3  # the spread, .0224 half way, falls to .95 of that
    assert t[half_way].diff(dim=1).std().item() == pytest.approx(0.0218, abs=0.003)


def test_levels_of_a_score_are_shared_or_independent_in_their_range(rng):
    for draw, is_shared in ((shared_levels, True), (independent_levels, False)):
        t = draw(5_000, 4, low=0.2, high=0.6, rng=rng)
        assert ((t == t[:, :1]).all()).item() is is_shared
        assert kolmogorov(t[:, 0], lambda x: (x - 0.2) / 0.4) < 1.95
        assert t.min() >= 0.2
        assert t.max() <= 0.6


def test_listed_levels_take_every_level_equally_often(rng):
    t = listed_levels(10_000, 4, (1.0, 0.5, 0.25), rng=rng)
    for level in (1.0, 0.5, 0.25):
        assert abs((t == level).float().mean() - 1 / 3) < 0.01


@pytest.mark.parametrize("name", LAWS)
def test_seven_frames_in_chunks_of_three_are_refused(name, rng):
    with pytest.raises(ValueError, match="clip length must be a multiple of chunk_len: T=7, chunk_len=3"):
        LAWS[name].draw(1, 7, chunk_len=3, rng=rng)


@pytest.mark.parametrize("law", NOISE_LEVELS.values(), ids=NOISE_LEVELS)
def test_grid_without_levels_is_refused(law):
    with pytest.raises(ValueError, match="num_levels must be at least 1, got 0"):
        law(num_levels=0)


def test_impossible_probabilities_and_slopes_are_refused():
    with pytest.raises(ValueError, match=r"clean_probability must be in \[0, 1\), got 1.0"):
        Independent(clean_probability=1.0)
    with pytest.raises(ValueError, match=r"first_clean_probability must be in \[0, 1\), got -0.1"):
        Independent(first_clean_probability=-0.1)
    with pytest.raises(ValueError, match=r"slope must be in \[0, 1\], got 1.5"):
        Pyramid(slope=1.5)
    with pytest.raises(ValueError, match=r"slope must be in \[0, 1\], got nan"):
        Pyramid(slope=float("nan"))
