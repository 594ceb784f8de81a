"""The denoising loss."""

import pytest
import torch

from pipeline.diffusion.denoising import denoising_loss
from pipeline.diffusion.log_snr import coefficients
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import (
    Cosine,
    EdmSampling,
    EdmTraining,
    FlowMatching,
    LogitNormal,
    VpLinear,
    add_noise,
)
from pipeline.diffusion.weighting import Edm, Elbo, Exponential, PredictionL2, Sigmoid
from tests.closed_forms import SKEWED


def loss(x0_hat, x0, t, weighting, schedule=None, counts=None):
    return denoising_loss(
        x0_hat,
        x0,
        t,
        schedule=schedule or FlowMatching(),
        weighting=weighting,
        counts=torch.ones_like(t) if counts is None else counts,
    )


@pytest.mark.parametrize("name", ["eps", "flow_velocity", "x0", "v", "edm"])
@pytest.mark.parametrize("schedule", [FlowMatching(shift=2.0), Cosine(), VpLinear()], ids=str)
def test_a_plain_mean_is_the_squared_error_of_its_prediction(name, schedule, rng):
    if name == "v" and schedule.family == "flow":
        pytest.skip("v is that of frames whose variance is preserved")
    x, eps, error = torch.randn(3, 4, 3, 1, 4, 4, generator=rng, dtype=torch.float64)
    t = torch.rand(4, 3, generator=rng, dtype=torch.float64) * 0.9 + 0.05
    x_t, at = add_noise(schedule, x, eps, t), schedule.at(t)
    x0_hat = x + 0.1 * error
    outputs = [PREDICTIONS[name].from_x0(clean, x_t, at) for clean in (x, x0_hat)]
    expected = (outputs[0] - outputs[1]).square().mean()
    assert loss(x0_hat, x, t, PredictionL2(name), schedule).item() == pytest.approx(expected.item(), rel=1e-5)


def test_frames_that_do_not_count_carry_no_loss(rng):
    x = torch.randn(2, 4, 1, 2, 2, generator=rng)
    t = torch.tensor([[0.0, 0.5, 0.0, 1.0]]).expand(2, 4).contiguous()
    counts = (t > 0).float()
    x0_hat = x.clone()
    x0_hat[:, [0, 2]] += 10.0
    assert loss(x0_hat, x, t, PredictionL2(), counts=counts) == 0
    x0_hat[:, 3] += 1.0  # one of two noisy frames is wrong by 1, at weight 1
    assert loss(x0_hat, x, t, PredictionL2(), counts=counts).item() == 0.5


def test_a_frame_counts_as_often_as_it_is_told():
    x, t = torch.zeros(1, 3, 1, 2, 2), torch.tensor([[1.0, 1.0, 0.0]])
    x0_hat = x.clone()
    x0_hat[:, 0] += 1.0  # squared error 1 at weight 1 in the first frame, 0 in the second
    for first, expected in ((1.0, 1 / 2), (3.0, 3 / 4)):
        counts = torch.tensor([[first, 1.0, 0.0]])
        assert loss(x0_hat, x, t, PredictionL2("x0"), counts=counts).item() == pytest.approx(expected)


SCHEDULES = [
    Cosine(),
    FlowMatching(),
    FlowMatching(shift=5.0),
    LogitNormal(),
    EdmTraining(),
    VpLinear(),
    EdmSampling(),
]


def exact_objective(low, high):
    """1/2 int w E|eps - eps_hat|^2 dl for the denoiser of N(.1, .7^2) on SKEWED: linear, so moments are enough."""
    x = torch.linspace(low, high, 20_001, dtype=torch.float64)
    alpha, sigma = coefficients(x, "variance_preserving")
    slope = 0.49 * alpha / (0.49 * alpha**2 + sigma**2)
    kept = 1 - slope * alpha
    error = kept**2 * 1.1875 + slope**2 * sigma**2 + (kept * (0.5 - 0.1)) ** 2
    return torch.trapezoid(torch.sigmoid(2 - x) * torch.exp(x) * error, x).item() / 2


def test_the_schedule_changes_the_variance_and_not_the_objective():
    """L_w of a wrong denoiser, of w = sigmoid(2 - l) on [-8.5, 9], by levels that seven schedules draw."""
    n, low, high = 400_000, -8.5, 9.0
    found = []
    for seed, schedule in enumerate(SCHEDULES):
        rng = torch.Generator().manual_seed(seed)
        t = torch.rand(n, 1, generator=rng, dtype=torch.float64)
        kind = torch.rand(n, generator=rng) < 0.75
        z, eps = torch.randn(2, n, generator=rng, dtype=torch.float64)
        x = torch.where(kind, 0.5 * z, 2.0 + z)
        alpha, sigma = (c.flatten() for c in schedule.at(t))
        noisy = alpha * x + sigma * eps
        x0_hat = 0.1 + 0.49 * alpha * (noisy - 0.1 * alpha) / (0.49 * alpha**2 + sigma**2)  # that of N(.1, .7^2)
        log_snr = schedule.log_snr(t).flatten()
        shaped = [v[:, None, None, None, None] for v in (x0_hat, x)]
        inside = ((log_snr > low) & (log_snr < high)).double()[:, None]
        parts = zip(*(v.split(n // 40) for v in (*shaped, t, inside)), strict=True)
        each = torch.stack(
            [loss(x0_hat, x, t, Sigmoid(2.0), schedule, counts) * counts.mean() for x0_hat, x, t, counts in parts]
        )
        found.append((each.mean().item(), each.std().item() / 40**0.5))
    expected = exact_objective(low, high)
    for mean, error in found:
        assert abs(mean - expected) < 4 * error, (expected, found)
    spreads = [error for _, error in found]
    assert max(spreads) > 1.3 * min(spreads)  # the choice matters for the variance


def test_the_weight_is_finite_where_a_frame_is_almost_or_wholly_noise():
    x = torch.zeros(1, 3, 1, 2, 2)
    t = torch.tensor([[1e-6, 1 - 1e-7, 1.0]])
    for weighting in (Elbo(), Exponential(), PredictionL2("flow_velocity"), PredictionL2("x0")):
        assert loss(x, x, t, weighting) == 0
    assert loss(x + 1, x, t[:, 2:].expand(1, 3), PredictionL2("flow_velocity")).item() == pytest.approx(1.0)


def test_the_loss_of_edm_is_that_of_its_code():
    """NVlabs/edm EDMLoss: sigma from normals -1, .3, 1.2; F = tanh(c_in x) + c_noise; noise of sines."""

    def det(shape, k):
        n = torch.Size(shape).numel()
        return torch.sin(k * (torch.arange(n, dtype=torch.float64) + 1)).reshape(shape)

    schedule = EdmTraining(family="variance_exploding")
    log_sigma = -1.2 + 1.2 * torch.tensor([-1.0, 0.3, 1.2], dtype=torch.float64)
    t = schedule.level(-2 * log_sigma)[:, None]
    x = 0.5 * det((3, 1, 2, 2), 0.9)[:, None]
    noise = det((3, 1, 2, 2), 1.7)[:, None]
    at = schedule.at(t)
    assert at.sigma.flatten().tolist() == pytest.approx([0.0907179415, 0.431710511, 1.27124918], rel=1e-6)
    noisy = add_noise(schedule, x, noise, t)
    c_in = 1 / (at.sigma**2 + 0.25).sqrt()
    output = torch.tanh(c_in * noisy) + (at.sigma.log() / 4)
    x0_hat = PREDICTIONS["edm"].to_x0(output, noisy, at, 0.5)
    factor = (at.sigma**2 + 0.25) / (at.sigma * 0.5) ** 2
    assert factor.flatten().tolist() == pytest.approx([125.510445, 9.36555576, 4.61878347], rel=1e-6)
    expected = [0.949979663, 0.0917593464, 1.78864896, 0.135952041]
    assert (factor * (x0_hat - x) ** 2).flatten()[:4].tolist() == pytest.approx(expected, rel=5e-6)
    assert loss(x0_hat, x, t, Edm(), schedule).item() == pytest.approx(0.959684134, rel=1e-6)


def test_the_exact_denoiser_leaves_what_cannot_be_known():
    """At one level the loss of the posterior mean is below that of any other denoiser."""
    n = 20_000
    rng = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, n, generator=rng, dtype=torch.float64)
    x = torch.where(torch.rand(n, generator=rng) < 0.75, 0.5 * z, 2.0 + z)
    t = torch.full((n, 1), 0.4, dtype=torch.float64)
    noisy = 0.6 * x + 0.4 * eps
    exact = SKEWED.denoiser(noisy, 0.6, 0.4)
    best, above, below = (
        loss(v[:, None, None, None, None], x[:, None, None, None, None], t, PredictionL2("eps")).item()
        for v in (exact, exact + 0.05, exact - 0.05)
    )
    assert min(above, below) > best
    assert (above + below) / 2 - best == pytest.approx((0.6 / 0.4 * 0.05) ** 2, rel=1e-5)
