"""SiD: the Fisher divergence at alpha 1/2, and the numbers of the public code at every alpha."""

import pytest
import torch

from pipeline.losses.scores import Scores
from pipeline.losses.sid import Sid
from tests.closed_forms import SKEWED, flow, gaussian, gradient, noise_average
from tests.losses.line import MEAN, STD, Exact, ExactScores, Nodes, fixed_point, rollout_of
from tests.losses.reach import reached

NODES = Nodes()
PEER_SIGMA = (0.0114774713, 0.96541661, 14.2580118)
PEER = {  # of SiD's training/sid_loss.py: the sum of the loss, and its gradient at the images
    0.5: (
        1.09541774,
        [
            [0.000395894051, -0.000157088041, -0.000437498093, 0.000209033489, -0.690787733, -0.54815805],
            [-0.679226279, -0.970543265, -1.01312971, -0.990992129, -1.00289571, -1.02051401],
        ],
    ),
    1.0: (
        -0.319238663,
        [
            [0.000382304192, -0.000171750784, -0.000449061394, 0.000202357769, -0.754593313, -0.595582426],
            [-0.732423544, -1.0458554, -1.01357758, -0.991430402, -1.00333953, -1.02096558],
        ],
    ),
    1.2: (
        -0.885101199,
        [
            [0.000376582146, -0.000177681446, -0.000453591347, 0.000199615955, -0.780115485, -0.61455214],
            [-0.753702462, -1.07598031, -1.01375663, -0.991605639, -1.00351703, -1.0211463],
        ],
    ),
}


def field(alpha):
    """The gradient of the loss at a student's mean and standard deviation, with exact scores of fixed weights."""
    loss = Sid(alpha=alpha, normaliser=False)

    def at(mean, std):
        student = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mean, std)]
        x0_hat, x_t = NODES.frames(*student)
        value = NODES.mean_of(loss.terms(rollout_of(x0_hat), ExactScores.of(mean, std), x_t, NODES.t))
        return tuple(slope.item() for slope in torch.autograd.grad(value, student))

    return at


def fisher(mean, std):
    """E_t E_p |D_fake - D_real|^2, both denoisers following the student: sigma^4 / alpha^2 |s_fake - s_real|^2."""

    def at(t):
        p, q = (flow(law, t) for law in (gaussian(mean, std), SKEWED))
        return p.mean_of(lambda z: t**4 / (1 - t) ** 2 * (p.score(z) - q.score(z)) ** 2)

    return noise_average(at)


def test_alpha_one_half_has_half_the_gradient_of_the_fisher_divergence():
    found = field(0.5)(MEAN, STD)
    assert found == pytest.approx([slope / 2 for slope in gradient(fisher, MEAN, STD)], abs=1e-6)
    assert found == pytest.approx((-0.0937917, -0.0299865), abs=1e-5)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(0.0, (-0.0724388, -0.0112023)), (1.0, (-0.1151446, -0.0487706)), (1.2, (-0.1236858, -0.0562842))],
)
def test_any_other_alpha_is_biased(alpha, expected):
    """Slopes of the Fisher divergence by itself are -.1875834 and -.0599729: no multiple of these."""
    found = field(alpha)(MEAN, STD)
    assert found == pytest.approx(expected, abs=1e-5)
    ratios = [slope / half for slope, half in zip(found, (-0.0937917, -0.0299865), strict=True)]
    assert abs(ratios[0] - ratios[1]) > 0.1


@pytest.mark.parametrize(
    ("alpha", "optimum"), [(0.5, (0.4868, 0.9792)), (1.0, (0.4975, 1.0335)), (1.2, (0.4970, 1.0557))]
)
def test_alpha_decides_where_the_student_rests(alpha, optimum):
    assert fixed_point(field(alpha), (0.49, 1.0)) == pytest.approx(optimum, abs=1e-4)


def test_with_an_exact_fake_score_the_value_is_the_fisher_divergence_times_one_less_alpha():
    x0_hat, x_t = NODES.frames(MEAN, STD)
    for alpha in (0.5, 1.0, 1.2):
        terms = Sid(alpha=alpha, normaliser=False).terms(
            rollout_of(x0_hat), ExactScores.of(MEAN, STD), x_t, NODES.t
        )
        expected = (1 - alpha) * fisher(*torch.tensor([MEAN, STD], dtype=torch.float64)).item()
        assert NODES.mean_of(terms).item() == pytest.approx(expected, abs=1e-6)


class VarianceExploding(torch.nn.Module):
    """E[x_0 | x_0 + sigma eps] of N(mean, std^2)."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.variance = mean, std**2

    def forward(self, x_t, t):
        return self.mean + self.variance / (self.variance + t[:, :, None, None, None] ** 2) * (x_t - self.mean)


@pytest.mark.parametrize("alpha", PEER)
def test_values_and_gradients_are_those_of_the_public_code(alpha):
    """Sums over clips; images, levels and noise are fixed numbers, the scores are those of two Gaussians."""
    i = torch.arange(1, 13, dtype=torch.float64).reshape(3, 1, 1, 2, 2)
    images, noise = (0.5 * torch.sin(0.9 * i)).requires_grad_(True), torch.sin(1.7 * i)
    sigma = torch.tensor(PEER_SIGMA, dtype=torch.float64)[:, None]
    scores = ExactScores(VarianceExploding(-0.1, 0.4), VarianceExploding(0.3, 0.5))
    x_t = images + sigma[:, :, None, None, None] * noise
    value = Sid(alpha=alpha).terms(rollout_of(images), scores, x_t, sigma).sum()
    (slope,) = torch.autograd.grad(value, images)
    total, slopes = PEER[alpha]
    assert value.item() == pytest.approx(total, abs=1e-6)
    assert slope.flatten().tolist() == pytest.approx([*slopes[0], *slopes[1]], abs=1e-6)


def test_gradients_reach_the_student_alone_and_the_fake_score_alone():
    assert reached(Sid()) == ({"student"}, {"fake"})


def test_gradients_flow_through_both_scores():
    """The slope of either denoiser counts: with one of them stopped the gradient is another one."""

    class Stopped(Exact):
        def forward(self, x_t, t):
            return super().forward(x_t.detach(), t)

    x0_hat = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(8, 1, 1, 1, 1).requires_grad_(True)
    t = torch.full((8, 1), 0.4, dtype=torch.float64)
    fake, real = gaussian(MEAN, STD), SKEWED

    def slope(scores: Scores):
        terms = Sid(normaliser=False).terms(rollout_of(x0_hat), scores, 0.6 * x0_hat, t)
        return torch.autograd.grad(terms.sum(), x0_hat)[0]

    whole = slope(ExactScores(Exact(fake), Exact(real)))
    for other in (ExactScores(Stopped(fake), Exact(real)), ExactScores(Exact(fake), Stopped(real))):
        assert (whole - slope(other)).abs().max() > 0.05


def test_sid_says_when_it_minimises_a_divergence():
    assert Sid(normaliser=False).measure == "Fisher divergence, averaged over noise, of {judged}"
    assert Sid(alpha=1.0).measure.startswith("no divergence")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
        ({"score_level": "each"}, "score_level must be one of shared, independent, got 'each'"),
        ({"level_max": 1.0}, "0 < level_min < level_max < 1 must hold, got 0.02 and 1.0"),
        ({"alpha": float("nan")}, r"alpha must be in \(-inf, inf\), got nan"),
    ],
)
def test_sid_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Sid(**fields)
