"""The bound, against closed forms of Gaussian data."""

import math

import pytest
import torch

from pipeline.diffusion.cube import pyramid_rows
from pipeline.diffusion.likelihood import (
    Chain,
    Levels,
    log_snr_levels,
    normal_kl,
    transition_weights,
    uniform_levels,
)
from pipeline.diffusion.reconstruction import PIXEL_BINS, Bins
from pipeline.diffusion.schedule import Cosine, Ddpm, EdmSampling, FlowMatching, LogitNormal

CLEAN = 1e3  # log-SNR that stands for level 0


def toeplitz(correlations):
    """A stationary covariance, float64."""
    F = len(correlations)
    return torch.tensor([[correlations[abs(i - j)] for j in range(F)] for i in range(F)], dtype=torch.float64)


# Four frames of a stationary AR(2) process, coefficients (.5, .4), unit variance; and the AR(1) process (std of the
# first frame, slope, std of the steps) whose reverse KL from it is least.
AR2 = toeplitz([1, 5 / 6, 49 / 60, 89 / 120])
AR1_FIT = (0.9728, 0.8608, 0.4977)
PAIR = torch.tensor([[1, 0.8], [0.8, 1]], dtype=torch.float64)
PAIR_MODEL = torch.tensor([[0.9, 0.5], [0.5, 1.2]], dtype=torch.float64)


def ar1(first_std, slope, std, num_frames=4):
    """Covariance of x_1 ~ N(0, first_std^2), x_f ~ N(slope x_{f-1}, std^2)."""
    steps = torch.eye(num_frames, dtype=torch.float64) - slope * torch.diag(
        torch.ones(num_frames - 1, dtype=torch.float64), -1
    )
    inverse = torch.linalg.inv(steps)
    variance = torch.tensor([first_std**2] + [std**2] * (num_frames - 1), dtype=torch.float64)
    return inverse @ torch.diag(variance) @ inverse.T


def path(num_levels, num_frames, lag):
    return torch.tensor(pyramid_rows(num_frames, num_levels, int(lag)))


def gaussian_kl(data, model):
    """KL(N(0, data) || N(0, model))."""
    ratio = torch.linalg.solve(model, data)
    return ((ratio.trace() - len(data) - torch.logdet(ratio)) / 2).item()


def expected_errors(data, model, log_snr):
    """E |x_f - x_hat_f|^2 of each frame, (M, F), of data N(0, data) and the posterior mean under N(0, model)."""
    noise = torch.diag_embed((-log_snr).exp())
    gain = torch.linalg.solve(model + noise, model.expand(len(log_snr), -1, -1)).mT  # P (P + N)^-1, both symmetric
    rest = torch.eye(len(data), dtype=torch.float64) - gain
    return (rest @ data @ rest.mT + gain @ noise @ gain.mT).diagonal(dim1=1, dim2=2)


def transitions(errors, log_snr, rows):
    """Expected transitions along rows over levels of these log-SNRs, of the errors of a state's log-SNRs."""
    at = torch.cat([torch.tensor([CLEAN], dtype=torch.float64), log_snr])[rows[:-1]]
    weights = torch.cat([torch.zeros(1, dtype=torch.float64), transition_weights(log_snr)])[rows[:-1]]
    return (weights * errors(at) * (rows[:-1] > rows[1:])).sum().item()


def evenly(num_levels, end=12.0):
    return torch.linspace(end, -end, num_levels, dtype=torch.float64)


class GaussianDenoiser:
    """The posterior mean of frames of one value, N(0, model), in the variance-preserving family."""

    def __init__(self, model, schedule):
        self.model, self.schedule = model, schedule

    def __call__(self, x_t, t):
        alpha, sigma = (c.flatten(1).double() for c in self.schedule.at(t))
        noised = alpha[:, :, None] * self.model * alpha[:, None, :] + torch.diag_embed(sigma**2)
        z = torch.linalg.solve(noised, x_t.double().flatten(1)[:, :, None])
        return (self.model @ (alpha[:, :, None] * z)).to(x_t).reshape(x_t.shape)


def gaussian_clips(covariance, num_clips, rng):
    """(B, F, 1, 1, 1), float64."""
    z = torch.randn(num_clips, len(covariance), generator=rng, dtype=torch.float64)
    return (z @ torch.linalg.cholesky(covariance).T)[:, :, None, None, None]


def chain_of(schedule, levels, bins):
    return Chain(schedule, levels, levels.first_std, bins)


def test_paths_are_lockstep_pyramid_and_teacher_forcing():
    chain = chain_of(Cosine(), log_snr_levels(Cosine(), 2, log_snr_max=2.0, log_snr_min=-2.0), PIXEL_BINS)
    assert chain.path(3, 0).tolist() == [[2, 2, 2], [1, 1, 1], [0, 0, 0]]
    assert chain.path(3, 1).tolist() == [[2, 2, 2], [1, 2, 2], [0, 1, 2], [0, 0, 1], [0, 0, 0]]
    assert chain.path(2, 2).tolist() == [[2, 2], [1, 2], [0, 2], [0, 1], [0, 0]]


def test_levels_are_evenly_spaced_and_those_of_the_schedule():
    levels = log_snr_levels(Cosine(), 9, log_snr_max=8.0, log_snr_min=-8.0)
    assert torch.allclose(levels.log_snr, torch.linspace(8, -8, 9, dtype=torch.float64), atol=1e-3)  # t is float32
    assert torch.equal(Cosine().log_snr(levels.t), levels.log_snr)
    assert levels.first_std == pytest.approx(math.exp(-4), rel=1e-3)


def test_a_table_gives_each_of_its_levels_once():
    schedule = Ddpm(num_levels=20)
    levels = log_snr_levels(schedule, 500, log_snr_max=schedule.range[1], log_snr_min=schedule.range[0])
    assert len(levels.t) == 20
    assert torch.equal(levels.log_snr, uniform_levels(schedule, 20).log_snr)


def test_levels_that_a_schedule_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"log_snr must be finite at t = 1 .* got -inf under FlowMatching"):
        uniform_levels(FlowMatching(), 8)
    with pytest.raises(ValueError, match=r"log_snr must be in \[-8.764"):
        log_snr_levels(EdmSampling(), 8, log_snr_max=9.0, log_snr_min=-10.0)
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        log_snr_levels(Cosine(), 1, log_snr_max=9.0, log_snr_min=-8.0)
    with pytest.raises(ValueError, match=r"log_snr_max must be above 3\.0, got 2\.0"):
        log_snr_levels(Cosine(), 8, log_snr_max=2.0, log_snr_min=3.0)
    with pytest.raises(ValueError, match=r"log_snr must be finite and fall .* got 1 levels, from 1\.62"):
        log_snr_levels(Ddpm(num_levels=20), 8, log_snr_max=1.5, log_snr_min=1.49)
    with pytest.raises(ValueError, match=r"log_snr must be finite .* to -inf, under LogitNormal"):
        log_snr_levels(LogitNormal(1.0, 0.5), 8, log_snr_max=9.0, log_snr_min=-8.5)


@pytest.mark.parametrize("lag", [0, 0.25, 1])
def test_paths_all_cost_the_kl_of_a_consistent_model(lag):
    """1/2 int sum_f (-dl_f) (E|eps - eps_hat|^2 - its minimum) = KL(data || model), along any path."""
    model = ar1(*AR1_FIT)
    kl = gaussian_kl(AR2, model)
    assert kl == pytest.approx(0.215146, abs=2e-4)  # of the parameters before they were rounded

    def excess(num_levels):
        log_snr = evenly(num_levels + 1, 14.0)
        rows = path(num_levels + 1, 4, lag * num_levels)

        def errors(at):
            return expected_errors(AR2, model, at) - expected_errors(AR2, AR2, at)

        return transitions(errors, log_snr, rows)

    coarse, fine = excess(1024), excess(2048)
    assert 2 * fine - coarse == pytest.approx(kl, abs=2e-5)  # the error of the sum is proportional to the spacing


@pytest.mark.parametrize(("num_levels", "gap"), [(32, 9.67149594), (128, 1.9961796), (512, 0.476912533)])
def test_coarse_levels_cost_the_best_denoiser_what_they_should(num_levels, gap):
    log_snr = evenly(num_levels + 1)
    mutual = [torch.logdet(torch.eye(4).double() + math.exp(end) * AR2).item() / 2 for end in (12, -12)]
    for lag in (0, num_levels):
        cost = transitions(lambda at: expected_errors(AR2, AR2, at), log_snr, path(num_levels + 1, 4, lag))
        assert cost - (mutual[0] - mutual[1]) == pytest.approx(gap, abs=1e-4)


@pytest.mark.parametrize(("ahead", "gap"), [(0, 0.25541), (0.5, 0.20924), (1, 0.16584), (2, 0.09508), (4, 0.02374)])
def test_a_causal_mask_costs_less_the_further_the_first_frame_is_ahead(ahead, gap):
    """In lockstep exactly I(x_1; x_2) / 2 of two exchangeable frames: the mask hides frame 2 from frame 1."""
    per_unit = 16
    log_snr = evenly(2 * 14 * per_unit + 1, 14.0)

    def errors(at):
        alone = 1 / (1 + at[:, 0].exp())  # of frame 1, which sees only itself
        return torch.stack([alone, torch.zeros_like(alone)], 1) - expected_errors(PAIR, PAIR, at) * torch.tensor(
            [1, 0]
        )

    cost = transitions(errors, log_snr, path(len(log_snr), 2, ahead * per_unit))
    fine = evenly(4 * 14 * per_unit + 1, 14.0)
    twice = transitions(errors, fine, path(len(fine), 2, 2 * ahead * per_unit))
    assert 2 * twice - cost == pytest.approx(gap, abs=2e-4)


def test_independent_levels_cost_the_conditional_kls():
    """E_{t ~ U^2} of the ELBO-weighted loss, less its minimum = sum_f E KL(q(x_f | z_-f) || p(x_f | z_-f))."""
    import numpy as np

    nodes, mass = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(240))
    t, mass = (nodes + 1) / 2, mass / 2
    schedule = FlowMatching()
    log_snr = schedule.log_snr(t)
    grid = torch.cartesian_prod(log_snr, log_snr)
    excess = expected_errors(PAIR, PAIR_MODEL, grid) - expected_errors(PAIR, PAIR, grid)
    per_dlog_snr = excess * grid.exp() / 2
    density = 1 / schedule.density(grid)
    loss = (torch.cartesian_prod(mass, mass).prod(1) * (per_dlog_snr * density).sum(1)).sum().item()

    def conditional_kl(f):
        """Of one frame given the other's noisy version, averaged over it."""
        noise, o = (-log_snr).exp(), 1 - f
        gains = [c[f, o] / (c[o, o] + noise) for c in (PAIR, PAIR_MODEL)]
        variances = [c[f, f] - g * c[f, o] for c, g in zip((PAIR, PAIR_MODEL), gains, strict=True)]
        shift = (gains[0] - gains[1]) ** 2 * (PAIR[o, o] + noise)
        return (mass * normal_kl(shift.sqrt(), variances[0], torch.zeros_like(shift), variances[1])).sum().item()

    assert loss == pytest.approx(0.15772923703914, abs=1e-8)
    assert conditional_kl(0) + conditional_kl(1) == pytest.approx(0.15772923703914, abs=1e-8)


@pytest.mark.parametrize("lag", [0, 0.25, 1])
def test_the_bound_converges_to_the_likelihood_on_every_path(rng, lag):
    """Of the very clips: the bound of fine levels, with its error proportional to the spacing taken off."""
    schedule, covariance, width = Cosine(), ar1(1.0, 0.8, 0.5, num_frames=3), 1e-3
    x0 = gaussian_clips(covariance, 1000, rng)
    law = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance)
    exact = -law.log_prob(x0.flatten(1)) - 3 * math.log(width)

    def gaps(num_levels):
        levels = log_snr_levels(schedule, num_levels, log_snr_max=8.0, log_snr_min=-10.0)
        chain = chain_of(schedule, levels, Bins(width))
        bound = chain.along(GaussianDenoiser(covariance, schedule), x0, chain.path(3, int(lag * num_levels)), rng)
        assert bound.prior.max() < 1e-3
        return bound.nats - exact

    coarse, fine = gaps(65), gaps(257)
    assert 0 < fine.mean() < 0.6 * coarse.mean()
    limit = (4 * fine - coarse) / 3
    assert limit.mean().abs().item() < 0.03 + 4 * limit.std().item() / math.sqrt(len(x0))


@pytest.mark.parametrize("lag", [0, 6, 24])
def test_the_estimate_is_unbiased_and_knows_its_error(rng, lag):
    schedule = Cosine()
    levels = log_snr_levels(schedule, 24, log_snr_max=6.0, log_snr_min=-6.0)
    chain = chain_of(schedule, levels, Bins(0.05))
    rows, denoise = chain.path(4, lag), GaussianDenoiser(ar1(*AR1_FIT), schedule)
    x0 = gaussian_clips(AR2, 1, rng).expand(4000, -1, -1, -1, -1)
    whole = chain.along(denoise, x0, rows, rng)
    drawn = chain.estimate(denoise, x0, rows, num_draws=4, rng=rng)
    assert torch.equal(drawn.prior, whole.prior)
    for part in ("transitions", "reconstruction", "nats"):
        few, all_moves = getattr(drawn, part), getattr(whole, part)
        error = ((few.var() + all_moves.var()) / len(x0)).sqrt().item()
        assert few.mean().item() == pytest.approx(all_moves.mean().item(), abs=4 * error)
        assert error < 0.02 * all_moves.mean().abs().item()


def test_the_bound_asks_for_finished_frames_clean_and_counts_calls(rng):
    schedule = FlowMatching()
    levels = log_snr_levels(schedule, 5, log_snr_max=6.0, log_snr_min=-6.0)
    chain, seen = chain_of(schedule, levels, Bins(0.1)), []
    x0 = torch.randn(2, 3, 1, 2, 2, generator=rng)

    def denoise(x_t, t):
        seen.append(t[0])
        clean = t == 0
        assert torch.equal(x_t[clean], x0[clean])
        return x_t

    chain.along(denoise, x0, chain.path(3, 5), rng)
    table = torch.cat([torch.zeros(1), levels.t.float()])
    assert torch.equal(torch.stack(seen), table[path(5, 3, 5)[:-1]])
    seen.clear()
    chain.estimate(denoise, x0, chain.path(3, 5), num_draws=3, rng=rng)
    assert len(seen) == 3


def test_impossible_chains_are_refused(rng):
    schedule = Cosine()
    levels = Levels(torch.tensor([0.2, 0.8]).double(), torch.tensor([2.0, -2.0]).double())
    with pytest.raises(ValueError, match="reconstruction_std must be above 0, got 0"):
        Chain(schedule, levels, 0.0, PIXEL_BINS)
    chain, x0 = chain_of(schedule, levels, PIXEL_BINS), torch.zeros(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="num_draws must be at least 2, got 1"):
        chain.estimate(lambda *_: x0, x0, chain.path(1, 0), num_draws=1, rng=rng)
