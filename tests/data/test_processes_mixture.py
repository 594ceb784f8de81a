"""The exact density, score, denoiser and conditionals of processes, against quadrature and autograd."""

import pytest
import torch

from pipeline.data.processes_mixture import GaussianMixture, IndependentPixels
from pipeline.diffusion.schedule import FlowMatching, add_noise
from tests.processes import PROCESSES

GRID = torch.linspace(-8, 10, 1201, dtype=torch.float64)
STEP = (GRID[1] - GRID[0]).item()
SQUARE = torch.cartesian_prod(GRID[::4], GRID[::4])
SQUARE_STEP = (4 * STEP) ** 2


def levels(*t):
    t = torch.tensor(t, dtype=torch.float64)
    return 1 - t, t


@pytest.mark.parametrize("name", ["A", "B"])
def test_density_of_a_frame_integrates_to_one(name):
    density = PROCESSES[name].law.log_density(GRID[:, None]).exp()
    assert (density.sum() * STEP).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ["C", "D"])
@pytest.mark.parametrize("t", [(0.0, 0.0), (0.6, 0.2)])
def test_density_of_two_frames_integrates_to_one(name, t):
    law = PROCESSES[name].law.noised(*levels(*t))
    assert (law.log_density(SQUARE).exp().sum() * SQUARE_STEP).item() == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("name", PROCESSES)
def test_score_is_the_slope_of_the_log_density(name, rng):
    law = PROCESSES[name].law
    F = law.num_frames
    alpha, sigma = levels(*torch.linspace(0.1, 0.7, F).tolist())
    x = torch.randn(7, F, generator=rng, dtype=torch.float64, requires_grad=True)
    for at_levels in (law, law.noised(alpha, sigma)):
        (slope,) = torch.autograd.grad(at_levels.log_density(x).sum(), x)
        assert torch.allclose(at_levels.score(x), slope, atol=1e-10)


@pytest.mark.parametrize("name", ["C", "D"])
@pytest.mark.parametrize("t", [(0.3, 0.8), (0.9, 0.2), (0.5, 0.5)])
def test_denoiser_is_the_posterior_mean_at_unequal_levels(name, t, rng):
    """Bayes by a sum over a grid of clean clips: no formula of the denoiser is used."""
    law = PROCESSES[name].law
    alpha, sigma = levels(*t)
    z = torch.randn(5, 2, generator=rng, dtype=torch.float64)
    log_likelihood = -((z[:, None] - alpha * SQUARE) / sigma).square().sum(-1) / 2
    posterior = torch.softmax(law.log_density(SQUARE) + log_likelihood, -1)
    assert torch.allclose(law.denoised(z, alpha, sigma), posterior @ SQUARE, atol=1e-6)


@pytest.mark.parametrize("name", ["A", "D", "L"])
def test_denoiser_agrees_with_tweedie(name, rng):
    law = PROCESSES[name].law
    alpha, sigma = levels(*torch.linspace(0.2, 0.9, law.num_frames).tolist())
    z = torch.randn(6, law.num_frames, generator=rng, dtype=torch.float64)
    tweedie = (z + sigma**2 * law.noised(alpha, sigma).score(z)) / alpha
    assert torch.allclose(law.denoised(z, alpha, sigma), tweedie, atol=1e-9)


@pytest.mark.parametrize("name", PROCESSES)
def test_denoiser_keeps_clean_frames_and_knows_nothing_of_pure_noise(name, rng):
    law = PROCESSES[name].law
    z = torch.randn(4, law.num_frames, generator=rng, dtype=torch.float64)
    zeros, ones = torch.zeros(law.num_frames).double(), torch.ones(law.num_frames).double()
    assert torch.allclose(law.denoised(z, ones, zeros), z, atol=1e-9)
    assert torch.allclose(law.denoised(z, zeros, ones), law.mean.expand_as(z), atol=1e-12)


@pytest.mark.parametrize("name", ["C", "D", "L"])
def test_conditionals_multiply_to_the_joint_density_and_integrate(name, rng):
    law = PROCESSES[name].law
    x = law.sample(6, rng)
    steps = [law.next_frame(x[:, :f]).log_prob(x[:, f]) for f in range(law.num_frames)]
    assert torch.allclose(torch.stack(steps).sum(0), law.log_density(x), atol=1e-9)
    density = law.next_frame(x[:1, :1]).log_prob(GRID[:, None]).exp()
    assert (density.sum() * STEP).item() == pytest.approx(1, abs=1e-9)


def test_conditional_of_a_persistent_mode_knows_which_mode_it_is_in():
    """Far to the right only the second mode is left: N(1.5 - .3 x_1, .6^2)."""
    following = PROCESSES["D"].law.next_frame(torch.tensor([[4.0]], dtype=torch.float64))
    assert following.mean.item() == pytest.approx(1.5 - 0.3 * 4, abs=1e-6)
    assert following.stddev.item() == pytest.approx(0.6, abs=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_samples_have_the_moments_of_the_law(name, rng):
    law, N = PROCESSES[name].law, 40_000
    x = law.sample(N, rng)
    std = law.covariance.diagonal().sqrt()
    assert ((x.mean(0) - law.mean).abs() < 5 * std / N**0.5).all()
    size = law.covariance.diagonal().amax()
    assert torch.allclose(torch.cov(x.mT).reshape_as(law.covariance), law.covariance, atol=0.02 * size.item())


def test_first_frames_are_those_of_shorter_clips():
    law = PROCESSES["D"].law
    x = GRID[::100, None]
    assert torch.allclose(law.first(1).log_density(x), law.next_frame(x[:, :0]).log_prob(x[:, 0]), atol=1e-12)


class TestPixels:
    def test_densities_add_over_pixels(self, rng):
        clips = IndependentPixels(PROCESSES["C"].law, (2, 1, 3))
        x = clips.sample(4, rng)
        assert x.shape == (4, 2, 2, 1, 3)
        alone = PROCESSES["C"].law.log_density(x[:, :, 1, 0, 2])
        assert torch.allclose(
            clips.log_density(x) - clips.log_density(x.clone().index_fill(4, torch.tensor([2]), 0.0)),
            sum(
                (PROCESSES["C"].law.log_density(x[:, :, c, 0, 2]) for c in (0, 1)),
                start=-2 * PROCESSES["C"].law.log_density(torch.zeros(2).double()),
            ),
        )
        assert alone.shape == (4,)

    def test_score_and_denoiser_are_those_of_every_pixel_at_its_clips_levels(self, rng):
        law, schedule = PROCESSES["D"].law, FlowMatching()
        clips = IndependentPixels(law, (1, 2, 2))
        x0 = clips.sample(3, rng)
        t = torch.tensor([[0.1, 0.9], [0.0, 0.4], [0.7, 0.7]], dtype=torch.float64)
        x_t = add_noise(schedule, x0, torch.randn(x0.shape, generator=rng, dtype=torch.float64), t)
        at = schedule.at(t)
        for b in range(3):
            alpha, sigma = 1 - t[b], t[b]
            z = x_t[b, :, 0, 1, 0][None]
            assert torch.allclose(clips.denoise(x_t, at)[b, :, 0, 1, 0][None], law.denoised(z, alpha, sigma))
            if b != 1:
                score = law.noised(alpha, sigma).score(z)
                assert torch.allclose(clips.score(x_t, at)[b, :, 0, 1, 0][None], score)

    def test_no_pixel_is_refused(self):
        with pytest.raises(ValueError, match="height must be at least 1, got 0"):
            IndependentPixels(PROCESSES["A"].law, (1, 0, 3))


def test_shares_that_do_not_sum_to_one_are_refused():
    law = PROCESSES["A"].law
    with pytest.raises(ValueError, match="sum to 1"):
        GaussianMixture(law.shares * 0.9, law.means, law.factors)


def test_a_context_as_long_as_the_clip_is_refused():
    with pytest.raises(ValueError, match="2 of 2 frames"):
        PROCESSES["D"].law.next_frame(torch.zeros(1, 2, dtype=torch.float64))
