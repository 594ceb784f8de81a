"""Errata of "Deriving DF+L2 Loss with Simple Example": the losses of a video as paths on a cube of noise levels."""

from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from tests.closed_forms import (
    HIGHEST,
    LOWEST,
    SKEWED,
    cross_entropy,
    entropy,
    flow,
    gaussian,
    gradient,
    kl,
    minimum,
    noise_average,
)

K = 3  # noise levels of the small cube
State = tuple[int, int]


def moves(state: State) -> list[State]:
    """The states that follow when one of two frames loses one noise level."""
    return [
        next_state for next_state in ((state[0] - 1, state[1]), (state[0], state[1] - 1)) if min(next_state) >= 0
    ]


def paths(state: State = (K, K)) -> list[list[State]]:
    """Every single-frame path to the clean corner."""
    if state == (0, 0):
        return [[state]]
    return [[state, *rest] for following in moves(state) for rest in paths(following)]


def edges(path: list[State]) -> list[tuple[State, State]]:
    return list(pairwise(path))


def largest_violation(probability: dict[tuple[State, State], Fraction]) -> Fraction:
    """The most that inflow and outflow of an interior state differ: 0 for the marginal of any law over paths."""
    surplus: defaultdict[State, Fraction] = defaultdict(Fraction)
    for (here, there), p in probability.items():
        surplus[here] -= p
        surplus[there] += p
    return max(abs(surplus[state]) for state in surplus if state not in {(K, K), (0, 0)})


def test_eq3_a_single_frame_path_has_nk_moves_so_t_k_is_not_its_end():
    assert {len(edges(path)) for path in paths()} == {2 * K}
    assert all(path[K] != (0, 0) for path in paths())  # after K moves from pure noise, T_0 is not reached


def test_eq5_noise_of_scale_beta_has_variance_beta_squared(rng):
    alpha, beta = 0.6, 0.8
    x = 1.3
    z = alpha * x + beta * torch.randn(400_000, generator=rng, dtype=torch.float64)
    assert z.var().item() == pytest.approx(beta**2, abs=0.005)
    assert abs(z.var().item() - beta) > 0.15  # as written: N(alpha X, beta I)


def test_eq14_to_16_are_three_different_numbers(rng):
    every = paths()
    values = torch.rand(len({e for path in every for e in edges(path)}), generator=rng, dtype=torch.float64)
    move_kl = dict(zip(sorted({e for path in every for e in edges(path)}), values.tolist(), strict=True))
    totals = [sum(move_kl[e] for e in edges(path)) for path in every]
    eq14 = sum(totals)
    eq15 = float(np.mean([total / len(edges(path)) for total, path in zip(totals, every, strict=True)]))
    eq16 = float(np.mean(totals))
    assert eq15 * 2 * K == pytest.approx(eq16)  # the inner expectation divides by the number of moves
    assert eq14 == pytest.approx(20 * eq16)  # the plain sum forgets p(path)
    share = Counter(e for path in every for e in edges(path))
    eq17 = sum(count / len(every) * move_kl[e] for e, count in share.items())
    assert eq17 == pytest.approx(eq16)  # (16) and (17) agree: the loss is the sum along a path


def test_eq19_no_law_over_paths_gives_every_transition_the_same_probability():
    every = paths()
    over_paths = {e: Fraction(n, len(every)) for e, n in Counter(e for path in every for e in edges(path)).items()}
    assert largest_violation(over_paths) == 0
    states: list[State] = [(first, second) for first, second in product(range(K + 1), repeat=2)]
    everywhere = [(here, there) for here in states for there in moves(here)]
    assert len(everywhere) == 24
    per_move = Fraction(2 * K, len(everywhere))  # a path makes 6 moves, so the 24 shares sum to 6
    assert largest_violation(dict.fromkeys(everywhere, per_move)) == Fraction(1, 4)


@pytest.mark.parametrize(("num_levels", "spread"), [(3, 0.447), (10, 0.229), (100, 0.071), (1000, 0.022)])
def test_after_eq19_uniform_paths_live_on_the_diagonal(num_levels, spread):
    """ "This should not matter too much": it is the difference between diffusion forcing and lockstep."""
    removed = np.arange(num_levels + 1)
    half_way = hypergeom(2 * num_levels, num_levels, num_levels).pmf(removed)  # of frame 1, mid path
    gap = np.abs(2 * removed - num_levels) / num_levels
    assert np.sqrt(half_way @ gap**2) == pytest.approx(spread, abs=6e-4)
    if num_levels == 100:
        far = np.abs(np.subtract.outer(removed[1:], removed[1:])) > num_levels / 4
        assert far.mean() == pytest.approx(0.56, abs=0.01)  # independent levels
        depths = range(2 * num_levels)  # of a path, uniformly
        far_on_path = 0.0
        for depth in depths:
            first = hypergeom(2 * num_levels, num_levels, depth).pmf(removed)
            far_on_path += first[np.abs(2 * removed - depth) > num_levels / 4].sum() / len(depths)
        assert far_on_path == pytest.approx(8.9e-5, abs=1e-6)


def student_entropy(s: torch.Tensor) -> torch.Tensor:
    return torch.log(s) + np.log(2 * np.pi * np.e) / 2


def test_eq21_is_a_cross_entropy_whose_best_student_is_a_point():
    mode = minimum(lambda m: -SKEWED.log_density(m), 0.3)[0]
    losses = [float(cross_entropy(gaussian(mode, s), SKEWED)) for s in (0.6, 0.3, 0.1, 0.05)]
    assert losses == pytest.approx([1.1036, 0.6603, 0.5101, 0.4957], abs=1e-4)
    assert losses[-1] == pytest.approx(float(-SKEWED.log_density(torch.tensor(mode))), abs=0.01)
    best = minimum(lambda m, s: kl(gaussian(m, s), SKEWED), 0.2, 0.7)
    assert best == pytest.approx((0.1479, 0.6309), abs=2e-4)  # the reverse KL alone, L_DMD, keeps a width


def test_eq31_and_33_minimise_the_entropy_that_35_maximises():
    m, s = 0.2, 0.7
    p = gaussian(m, s)
    assert float(entropy(p) + kl(p, SKEWED)) == pytest.approx(float(cross_entropy(p, SKEWED)), abs=1e-10)
    _, of_kl = gradient(lambda m, s: kl(gaussian(m, s), SKEWED), m, s)
    _, of_cross_entropy = gradient(lambda m, s: cross_entropy(gaussian(m, s), SKEWED), m, s)
    _, of_entropy = gradient(lambda m, s: student_entropy(s) + 0 * m, m, s)
    assert of_kl == pytest.approx(of_cross_entropy - of_entropy, abs=1e-9)  # the reverse KL rewards entropy, (35)
    assert of_entropy == pytest.approx(1 / s)  # minimising H + L_DMD therefore pays for shrinking s
    assert (of_cross_entropy, of_entropy, of_kl) == pytest.approx((1.5658, 1.4286, 0.1373), abs=1e-4)


def test_eq36_removing_the_entropy_adds_it_to_the_kl():
    """Data N(0, 1), student N(.5, .7^2)."""
    data = gaussian(0.0, 1.0)
    p = gaussian(0.5, 0.7)
    assert float(cross_entropy(p, data)) == pytest.approx(1.28893853, abs=1e-8)
    assert float(kl(p, data) + entropy(p)) == pytest.approx(1.28893853, abs=1e-8)
    assert float(kl(p, data) - entropy(p)) == pytest.approx(-0.83558865, abs=1e-7)  # as written
    slopes = [
        gradient(lambda m, s, sign=sign: kl(gaussian(m, s), data) + sign * student_entropy(s), 0.5, 0.7)[1]
        for sign in (1, -1)
    ]
    assert slopes == pytest.approx([0.7, -2.157142857], abs=1e-8)  # as written, descent widens the student
    assert gradient(lambda m, s: cross_entropy(gaussian(m, s), data), 0.5, 0.7)[1] == pytest.approx(0.7, abs=1e-8)


def test_dmd_note_transition_kls_telescope_to_the_clean_kl_and_are_not_the_dmd_loss():
    """Continuous time, flow-matching levels from .02 to .98, student N(.2, .7^2)."""
    p = gaussian(0.2, 0.7)

    def fisher_rate(t: torch.Tensor) -> torch.Tensor:  # 1/2 (-dlambda/dt) sigma^2 E_p|s_p - s_q|^2
        p_t, q_t = flow(p, t), flow(SKEWED, t)
        return t / (1 - t) * p_t.mean_of(lambda z: (p_t.score(z) - q_t.score(z)) ** 2)

    span = HIGHEST - LOWEST
    transitions = span * float(noise_average(fisher_rate, 48))
    ends = [float(kl(flow(p, t), flow(SKEWED, t))) for t in (LOWEST, HIGHEST)]
    assert transitions == pytest.approx(ends[0] - ends[1], abs=1e-6)
    assert transitions == pytest.approx(0.180670, abs=2e-6)
    dmd = span * float(noise_average(lambda t: kl(flow(p, t), flow(SKEWED, t))))
    assert dmd == pytest.approx(0.065784, abs=2e-6)
    best = minimum(lambda m, s: noise_average(lambda t: kl(flow(gaussian(m, s), t), flow(SKEWED, t))), 0.3, 0.8)
    assert best == pytest.approx((0.3225, 0.7862), abs=2e-4)  # the transitions': (.148, .631), that of the clean KL
