"""The adaptive schedule: the same objective, a smaller spread."""

import pytest
import torch

from pipeline.diffusion.adaptive import AdaptiveSchedule, AdaptiveSpec
from pipeline.diffusion.denoising import denoising_loss, loss_factor
from pipeline.diffusion.schedule import Cosine, EdmTraining, FlowMatching, LogitNormal, VpLinear
from pipeline.diffusion.weighting import Elbo, Sigmoid

SPEC = AdaptiveSpec(num_bins=60, low=-8.5, high=9.0, decay=0.9)


def wrong_denoiser(schedule, t, rng):
    """Frames of a mixture, and what the denoiser of N(.1, .7^2) makes of their noised values."""
    z, eps = torch.randn(2, *t.shape, generator=rng, dtype=torch.float64)
    x = torch.where(torch.rand(t.shape, generator=rng) < 0.75, 0.5 * z, 2.0 + z)
    alpha, sigma = (c[:, :, 0, 0, 0] for c in schedule.at(t))
    noisy = alpha * x + sigma * eps
    x0_hat = 0.1 + 0.49 * alpha * (noisy - 0.1 * alpha) / (0.49 * alpha**2 + sigma**2)
    return (v[:, :, None, None, None] for v in (x0_hat, x))


def learnt(num_frames=1, steps=150, native=None):
    adaptive = AdaptiveSchedule(SPEC, native or FlowMatching(), Sigmoid(2.0), num_frames)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        t = adaptive.draw(torch.rand(512, num_frames, generator=rng, dtype=torch.float64))
        x0_hat, x = wrong_denoiser(adaptive, t, rng)
        adaptive.observe(t, x0_hat, x, torch.ones_like(t))
    return adaptive


def estimates(schedule, n=200_000):
    """Loss of every single level, over [-8.5, 9]."""
    rng = torch.Generator().manual_seed(1)
    t = schedule.draw(torch.rand(n, 1, generator=rng, dtype=torch.float64))
    x0_hat, x = wrong_denoiser(schedule, t, rng)
    log_snr = schedule.log_snr(t)
    inside = ((log_snr > SPEC.low) & (log_snr < SPEC.high)).double()
    factor = loss_factor(t, schedule=schedule, weighting=Sigmoid(2.0))
    return (factor * inside)[:, 0] * (x0_hat - x).flatten() ** 2


def test_the_objective_stays_and_its_spread_is_the_least():
    adaptive = learnt()
    ours = estimates(adaptive)
    for schedule in (FlowMatching(), Cosine(), LogitNormal(), EdmTraining(), VpLinear()):
        theirs = estimates(schedule)
        error = (ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt()
        assert abs(ours.mean() - theirs.mean()) < 4 * error
        assert ours.std() < theirs.std(), schedule


def test_log_snrs_are_drawn_with_the_density_that_the_loss_divides_by():
    adaptive = learnt(num_frames=2)
    adaptive.error[1] = 1.0  # a table of its own
    rng = torch.Generator().manual_seed(2)
    n = 200_000
    log_snr = adaptive.log_snr(adaptive.draw(torch.rand(n, 2, generator=rng, dtype=torch.float64)))
    edges = torch.linspace(SPEC.low, SPEC.high, 21, dtype=torch.float64)
    for frame in range(2):
        found = torch.histogram(log_snr[:, frame].contiguous(), edges).hist / n
        grid = torch.linspace(SPEC.low + 1e-6, SPEC.high - 1e-6, 60_001, dtype=torch.float64)
        density = adaptive.density(grid[:, None].expand(-1, 2).contiguous())[:, frame]
        mass = torch.cumulative_trapezoid(density, grid)
        wanted = torch.diff(torch.cat([torch.zeros(1), mass[torch.arange(2999, 60_000, 3000)]]))
        assert (found - wanted).abs().max() < 5e-3
        assert mass[-1] == pytest.approx(1.0, abs=1e-3)


def test_draws_leave_clean_frames_and_pure_noise_alone():
    adaptive = learnt(num_frames=3, steps=3)
    t = adaptive.draw(torch.tensor([[0.0, 0.5, 1.0]]))
    assert t[0, 0] == 0
    assert t[0, 2] == 1
    assert 0 < t[0, 1] < 1
    assert t.dtype == torch.float32


def test_only_bins_of_counted_frames_move():
    adaptive = AdaptiveSchedule(SPEC, FlowMatching(), Elbo(), 2)
    x = torch.zeros(1, 2, 1, 1, 1)
    t = torch.tensor([[0.5, 0.5]])  # log-SNR 0, where the error of eps is that of x0
    before = adaptive.error.clone()
    adaptive.observe(t, x + 2, x, torch.tensor([[1.0, 0.0]]))
    moved = (adaptive.error != before).nonzero()
    assert moved.tolist() == [[0, int(8.5 / (17.5 / 60))]]
    here = tuple(moved[0].tolist())
    assert adaptive.error[here].item() == pytest.approx(0.9 * before[here].item() + 0.1 * 4)


def test_the_loss_takes_it_as_any_schedule(rng):
    adaptive = learnt(num_frames=2, steps=5)
    t = adaptive.draw(torch.rand(8, 2, generator=rng, dtype=torch.float64))
    x0_hat, x = wrong_denoiser(adaptive, t, rng)
    found = denoising_loss(x0_hat, x, t, schedule=adaptive, weighting=Sigmoid(2.0), counts=torch.ones_like(t))
    log_snr = adaptive.log_snr(t)
    factor = torch.sigmoid(2 - log_snr) / (2 * adaptive.density(log_snr)) * log_snr.exp()
    expected = (factor * (x0_hat - x).square()[:, :, 0, 0, 0]).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AdaptiveSpec(num_bins=1), "num_bins must be at least 2, got 1"),
        (lambda: AdaptiveSpec(low=3.0, high=2.0), "high must be above 3.0, got 2.0"),
        (lambda: AdaptiveSpec(decay=1.0), r"decay must be in \[0, 1\), got 1.0"),
        (lambda: AdaptiveSpec(floor=0.0), r"floor must be in \(0, 1\], got 0.0"),
        (
            lambda: AdaptiveSchedule(AdaptiveSpec(low=-12.0), VpLinear(), Elbo(), 2),
            r"must lie in the range of the schedule that it adapts: \[-12.0, 10.0\] and \[-10.0500, inf\]",
        ),
    ],
)
def test_what_makes_no_density_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
