"""The cube of noise levels, enumerated."""

import math
from fractions import Fraction

import numpy as np
import pytest

from pipeline.diffusion import cube

# n = 2, K = 3, worked out by hand from the 20 paths: the chances that frame 1, and frame 2, go down from a state
TWENTY_PATHS = {
    (3, 3): ("1/2", "1/2"),
    (3, 2): ("3/10", "1/5"),
    (3, 1): ("3/20", "1/20"),
    (2, 2): ("3/10", "3/10"),
    (3, 0): ("1/20", "0"),
    (2, 1): ("3/10", "3/20"),
    (2, 0): ("1/5", "0"),
    (1, 1): ("3/10", "3/10"),
    (1, 0): ("1/2", "0"),
}


@pytest.mark.parametrize(("num_frames", "num_levels"), [(2, 2), (2, 3), (2, 4), (3, 2)])
def test_formula_of_uniform_paths_is_that_of_all_paths_one_by_one(num_frames, num_levels):
    paths = list(cube.single_paths(num_frames, num_levels))
    law = cube.uniform_paths(num_frames, num_levels)
    assert law == cube.visits(paths)
    assert len(paths) == cube.num_ways((num_levels,) * num_frames)
    assert set(cube.layers(law).values()) == {1}
    assert cube.violation(law) == 0


def test_uniform_paths_of_two_frames_and_three_levels_are_those_worked_out():
    law = cube.uniform_paths(2, 3)
    assert len(law) == 24
    for (high, low), chances in TWENTY_PATHS.items():
        for frame, chance in enumerate(chances):
            if Fraction(chance):
                assert law[cube.Move((high, low), (frame,))] == Fraction(chance)
                assert law[cube.Move((low, high), (1 - frame,))] == Fraction(chance)


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (cube.uniform_moves(2, 3), Fraction(1, 4)),
        (cube.uniform_moves(2, 3, lowest=1), Fraction(1, 3)),  # moves lead to a clean frame, and none from there
        (cube.uniform_in_layers(2, 3), Fraction(1, 6)),
    ],
)
def test_equally_likely_moves_are_no_law_over_paths(law, expected):
    assert sum(law.values()) == 6
    assert cube.violation(law) == expected


def test_independent_levels_cover_the_moves_of_the_public_code_or_all():
    assert len(cube.uniform_moves(2, 3)) == 24
    assert set(cube.uniform_moves(2, 3).values()) == {Fraction(6, 24)}
    assert len(cube.uniform_moves(2, 3, lowest=1)) == 18
    assert set(cube.uniform_in_layers(2, 3).values()) == {Fraction(1, k) for k in (2, 4, 6)}


def test_pyramid_without_lag_is_lockstep():
    rows = cube.pyramid_rows(3, 4, 0)
    assert rows == [(k, k, k) for k in (4, 3, 2, 1, 0)]
    assert cube.lockstep(3, 4) == {cube.Move((k, k, k), (0, 1, 2)): 1 for k in (4, 3, 2, 1)}


def test_pyramid_of_full_lag_is_teacher_forcing_one_move_a_row():
    rows = cube.pyramid_rows(3, 4, 4)
    assert len(rows) == 3 * 4 + 1
    made = [(0,) * f + (k,) + (4,) * (2 - f) for f in range(3) for k in (4, 3, 2, 1)]
    assert rows[:-1] == made
    assert set(cube.teacher_forcing(3, 4)) == {
        cube.Move(row, (f,))
        for f, row in zip((0, 1, 2), (made[:4], made[4:8], made[8:]), strict=True)
        for row in row
    }


@pytest.mark.parametrize("lag", [0, 1, Fraction(3, 2), Fraction(7, 3), 4])
def test_pyramid_has_a_row_for_every_level_of_its_last_frame(lag):
    rows = cube.pyramid_rows(3, 4, lag)
    assert len(rows) == 4 + math.floor(2 * lag) + 1
    assert rows[0] == (4, 4, 4)
    assert rows[-1] == (0, 0, 0)
    assert sum(cube.frame_visits(cube.pyramid(3, 4, lag)).values()) == 3 * 4


LAWS_OVER_PATHS = {
    "lockstep": cube.lockstep(4, 2),
    "teacher_forcing": cube.teacher_forcing(4, 2),
    "chunks": cube.teacher_forcing(4, 2, chunk_len=2),
    "any_order": cube.any_order(4, 2),
    "pyramid": cube.pyramid(4, 2, 1),
    "random_pyramid": cube.random_pyramid(4, 2),
    "uniform_paths": cube.uniform_paths(4, 2),
}


@pytest.mark.parametrize("name", LAWS_OVER_PATHS)
def test_every_law_over_paths_conserves_flow_and_takes_each_frame_down_every_level(name):
    law = LAWS_OVER_PATHS[name]
    assert cube.violation(law) == 0
    for frame in range(4):
        for level in (1, 2):
            often = [p for (state, f), p in cube.frame_visits(law).items() if f == frame and state[f] == level]
            assert sum(often) == 1


def test_any_order_takes_every_first_move_equally_often_and_one_order_of_24():
    law = cube.any_order(4, 2)
    assert law[cube.Move((2, 2, 2, 2), (1,))] == Fraction(1, 4)
    assert law[cube.Move((0, 2, 0, 2), (3,))] == Fraction(2, 24)  # after frames 1 and 3, in both orders


def test_chunks_of_teacher_forcing_move_together():
    law = cube.teacher_forcing(4, 2, chunk_len=2)
    assert set(law) == {
        cube.Move((2, 2, 2, 2), (0, 1)),
        cube.Move((1, 1, 2, 2), (0, 1)),
        cube.Move((0, 0, 2, 2), (2, 3)),
        cube.Move((0, 0, 1, 1), (2, 3)),
    }


def test_random_pyramid_is_lockstep_at_one_end_and_teacher_forcing_at_the_other():
    law = cube.random_pyramid(2, 2)
    assert law[cube.Move((2, 2), (0, 1))] == Fraction(1, 3)  # lag 0 alone
    assert law[cube.Move((0, 2), (1,))] == Fraction(1, 3)  # lag 2 alone
    assert law[cube.Move((2, 2), (0,))] == Fraction(2, 3)


def occupied(law):
    """How often a path of single moves is at every state."""
    occupied = {}
    for move, often in law.items():
        occupied[move.start] = occupied.get(move.start, 0) + often
    return occupied


@pytest.mark.parametrize(
    ("num_levels", "spread", "far"), [(3, 0.447, None), (10, 0.229, 0.172), (100, 0.071, 9e-5)]
)
def test_uniform_paths_crowd_around_the_diagonal(num_levels, spread, far):
    """sd of (k1 - k2)/K half way is 1/sqrt(2K - 1); independent levels are K/4 apart in .56 of all draws."""
    chance = {
        state: often / (2 * num_levels) for state, often in occupied(cube.uniform_paths(2, num_levels)).items()
    }
    half_way = {state: p for state, p in chance.items() if sum(state) == num_levels}
    variance = sum(p * Fraction(a - b, num_levels) ** 2 for (a, b), p in half_way.items()) / sum(half_way.values())
    assert variance == Fraction(1, 2 * num_levels - 1)
    assert math.sqrt(variance) == pytest.approx(spread, abs=5e-4)
    if far is not None:
        assert sum(p for (a, b), p in chance.items() if 4 * abs(a - b) > num_levels) == pytest.approx(far, rel=0.01)


DATA = np.array([[1, 0.8], [0.8, 1]])
MODEL = np.array([[0.9, 0.5], [0.5, 1.2]])
LOG_SNR = np.array([8.0, 2.0, -2.0, -8.0])  # of levels 0, ..., 3


def eps_error(state):
    """E|eps - eps_hat|^2 of every frame: Gaussian data, and the best denoiser of another Gaussian."""
    log_snr = LOG_SNR[list(state)]
    alpha, sigma = (np.diag(np.sqrt(1 / (1 + np.exp(sign * log_snr)))) for sign in (-1, 1))
    gain = MODEL @ alpha @ np.linalg.inv(alpha @ MODEL @ alpha + sigma @ sigma)
    of_x0, of_eps = np.eye(2) - gain @ alpha, -gain @ sigma  # x0 - x0_hat
    error = np.diag(of_x0 @ DATA @ of_x0.T + of_eps @ of_eps.T)
    return np.exp(log_snr) * error


def bound(law):
    """Expected KL divergence along a law's paths: a frame's move costs expm1(step in log-SNR)/2 times its error."""
    return sum(
        float(often) * 0.5 * np.expm1(LOG_SNR[state[f] - 1] - LOG_SNR[state[f]]) * eps_error(state)[f]
        for (state, f), often in cube.frame_visits(law).items()
    )


@pytest.mark.parametrize(
    ("law", "total"),
    [
        (cube.lockstep(2, 3), 335.202498),
        (cube.teacher_forcing(2, 3), 345.513999),
        (cube.uniform_paths(2, 3), 336.387092),
        (cube.uniform_moves(2, 3), 345.159103),
        (cube.uniform_moves(2, 3, lowest=1), 351.042982),
    ],
)
def test_bound_of_a_gaussian_along_each_law(law, total):
    assert bound(law) == pytest.approx(total, abs=1e-6)


def test_bound_of_uniform_paths_is_the_mean_over_paths():
    bounds = [bound(cube.visits([path])) for path in cube.single_paths(2, 3)]
    assert len(bounds) == 20
    assert np.ptp(bounds) > 10
    assert np.mean(bounds) == pytest.approx(bound(cube.uniform_paths(2, 3)), abs=1e-10)


def test_impossible_cubes_are_refused():
    with pytest.raises(ValueError, match="num_levels must be at least 1, got 0"):
        cube.states(2, 0)
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        cube.single_paths(0, 2)
    with pytest.raises(ValueError, match=r"lag must be in \[0, num_levels=3\], got 4"):
        cube.pyramid_rows(2, 3, 4)
    with pytest.raises(ValueError, match="lowest"):
        cube.uniform_moves(2, 3, lowest=4)
    with pytest.raises(ValueError, match="clip length must be a multiple of chunk_len: T=3, chunk_len=2"):
        cube.teacher_forcing(3, 2, chunk_len=2)
    with pytest.raises(ValueError, match=r"a move must take frames one level down, got \(2, 2\) to \(0, 2\)"):
        cube.path_along([(2, 2), (0, 2)])
