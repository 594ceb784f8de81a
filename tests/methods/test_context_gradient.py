"""What is lost where the gradient stops at the context: fixed points of a tied student, in closed form.

Data: four frames of a stationary process of second order, x_f = .5 x_f-1 + .4 x_f-2 + noise, of variance 1.
Student: x_1 = first z_1 and x_f = link x_f-1 + spread z_f, with one link and one spread for all frames. It cannot
be right, and what it settles on tells the gradients apart.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import root

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import FlowMatching
from pipeline.methods.self_forcing import SelfForcing
from pipeline.models.backbone import BackboneSpec
from pipeline.models.denoiser import Denoiser, DenoiserSpec
from tests.closed_forms import HIGHEST, LOWEST, gaussian_kl

NUM_FRAMES = 4
ONE_STEP = Sampler(num_steps=1, window=1)
# points z and -z whose mean of z z^T is the identity: means of quadratic forms over them are those over N(0, 1)
NORMAL_POINTS = torch.cat([torch.eye(NUM_FRAMES), -torch.eye(NUM_FRAMES)]).double() * NUM_FRAMES**0.5


def second_order():
    """Covariance of the data: correlations 1, .8333, .8167, .7417."""
    correlation = [1.0, 0.5 / 0.6]
    while len(correlation) < NUM_FRAMES:
        correlation.append(0.5 * correlation[-1] + 0.4 * correlation[-2])
    lag = np.abs(np.subtract.outer(np.arange(NUM_FRAMES), np.arange(NUM_FRAMES)))
    return torch.from_numpy(np.array(correlation)[lag])


class FirstOrder:
    """The tied student: one call a frame, whose context is the frame before."""

    def __init__(self, first, link, spread):
        self.first, self.link, self.spread = first, link, spread

    def denoise_chunk(self, x_t, t, cache):
        return self.first * x_t if cache is None else self.link * cache + self.spread * x_t

    def extend(self, cache, x, t, *, window):
        return x


def rolled(parameters, *, detach_context):
    """Its clips (points, F) from the points of the noise."""
    noise = NORMAL_POINTS[..., *[None] * 3]
    made = generate(
        FirstOrder(*parameters),
        noise,
        schedule=FlowMatching(),
        sampler=ONE_STEP,
        rng=torch.Generator(),
        detach_context=detach_context,
    )
    return made.x0_hat.flatten(1)


def clean_scores(student, data):
    """Matrix M with s_fake(x) - s_real(x) = M x."""
    return torch.linalg.inv(data) - torch.linalg.inv(student)


def averaged_scores(student, data):
    """The same in space `score`, averaged over levels of flow matching: E_t alpha^2 (Q_t^-1 - P_t^-1)."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    total = torch.zeros_like(data)
    for node, weight in zip(nodes, weights, strict=True):
        t = (LOWEST + HIGHEST + (HIGHEST - LOWEST) * node) / 2
        noised = ((1 - t) ** 2 * law + t**2 * torch.eye(NUM_FRAMES) for law in (student, data))
        total = total + weight / 2 * (1 - t) ** 2 * clean_scores(*noised)
    return total


def fixed_point(scores, *, detach_context):
    """Where E[(s_fake - s_real) dx/d parameters] = 0, with the context as part of x or without."""
    data = second_order()

    def pull(values):
        parameters = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]
        x = rolled(parameters, detach_context=detach_context)
        frames = rolled(parameters, detach_context=True).detach()
        difference = frames @ scores(frames.T @ frames / len(frames), data)
        slopes = torch.autograd.grad((difference * x).sum() / len(x), parameters)
        return np.array([slope.item() for slope in slopes])

    found = root(pull, np.array([0.9, 0.8, 0.5]), tol=1e-12)
    assert found.success
    return found.x


@pytest.mark.parametrize(
    ("scores", "detach_context", "expected"),
    [
        (clean_scores, True, (0.7136, 0.6520, 0.5236)),
        (clean_scores, False, (0.9728, 0.8608, 0.4977)),
        (averaged_scores, True, (0.8522, 0.7692, 0.5353)),
        (averaged_scores, False, (0.9898, 0.8749, 0.4803)),
    ],
)
def test_a_detached_context_moves_the_fixed_point(scores, detach_context, expected):
    assert fixed_point(scores, detach_context=detach_context) == pytest.approx(expected, abs=1e-3)


def test_only_the_whole_gradient_ends_at_the_least_reverse_kl():
    def reverse_kl(parameters):
        x = rolled([torch.tensor(p, dtype=torch.float64) for p in parameters], detach_context=True)
        return gaussian_kl((x.T @ x / len(x)).numpy(), second_order().numpy())

    detached, whole = (fixed_point(clean_scores, detach_context=d) for d in (True, False))
    assert reverse_kl(detached) == pytest.approx(0.3255, abs=1e-3)
    assert reverse_kl(whole) == pytest.approx(0.1680, abs=1e-3)
    nearby = whole + 0.01 * np.concatenate([np.eye(3), -np.eye(3)])
    assert all(reverse_kl(p) > reverse_kl(whole) for p in nearby)


def lively():
    torch.manual_seed(0)
    spec = BackboneSpec(channels=1, frame_size=4, patch=4, width=16, depth=2, num_heads=2)
    denoiser = Denoiser(DenoiserSpec(spec))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser


def slopes_of_last_frame(student, *, detach_context):
    method = SelfForcing(Sampler(num_steps=2), detach_context=detach_context)
    made = method.rollout(
        student, torch.zeros(4, 3, 1, 4, 4), schedule=FlowMatching(), rng=torch.Generator().manual_seed(1)
    )
    of_weights = torch.autograd.grad(made.x0_hat[:, 2].sum(), list(student.backbone.blocks.parameters()))
    return made.x0_hat.detach(), torch.cat([slope.flatten() for slope in of_weights])


def test_frames_are_the_same_and_only_their_gradient_differs():
    student = lively()
    (frames, own), (same, whole) = (slopes_of_last_frame(student, detach_context=d) for d in (True, False))
    assert torch.equal(frames, same)
    assert (own - whole).norm() > 0.1 * own.norm()


def test_the_whole_gradient_is_that_of_the_frames_by_finite_difference():
    """And the detached one is not."""
    student = lively().double()
    weight = student.get_parameter("backbone.blocks.0.down.weight")

    def last_frame():
        method = SelfForcing(Sampler(num_steps=1), detach_context=False)
        clips = torch.zeros(4, 3, 1, 4, 4, dtype=torch.float64)
        made = method.rollout(student, clips, schedule=FlowMatching(), rng=torch.Generator().manual_seed(1))
        return made.x0_hat[:, 2].sum()

    (whole,) = torch.autograd.grad(last_frame(), weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-5 * torch.sign(whole)
            values.append(last_frame().item())
            weight -= sign * 1e-5 * torch.sign(whole)
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(whole.abs().sum().item(), rel=1e-5)
