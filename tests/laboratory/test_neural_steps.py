"""The KL by step on students of which the KL of the path, and of every step, is known in closed form."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from pipeline.data.processes import LinearGaussian
from pipeline.laboratory.laws import chain_law
from pipeline.laboratory.steps import conditional_log_densities, kl_by_frame
from pipeline.models.linear_gaussian import STUDENTS
from tests.processes import PROCESSES

SLOPE, FRAMES = 0.8, 6
DATA = LinearGaussian((SLOPE,), FRAMES).law
S1, C, S = 1.2, 0.6, 0.7  # of the tied student
CHAIN = STUDENTS["tied"].chain(*torch.tensor([S1, C, S], dtype=torch.float64))
STUDENT = chain_law(CHAIN, FRAMES)
NUM_PATHS = 40000


def steps(own, other, seed=0):
    x = own.sample(NUM_PATHS, torch.Generator().manual_seed(seed))
    return kl_by_frame(conditional_log_densities(own, x), conditional_log_densities(other, x))


def of_gaussians(variance, other, apart=0.0):
    """KL of N(0, variance) from N(apart, other), apart^2 given."""
    return (variance / other + apart / other - 1 - math.log(variance / other)) / 2


def test_conditionals_multiply_to_the_density():
    law = PROCESSES["C"].law
    x = law.sample(100, torch.Generator().manual_seed(0))
    assert conditional_log_densities(law, x).sum(1).numpy() == pytest.approx(law.log_density(x).numpy(), abs=1e-10)


@pytest.mark.parametrize(("own", "other"), [(DATA, STUDENT), (STUDENT, DATA)])
def test_the_steps_sum_to_the_kl_of_the_path(own, other):
    p, q = (MultivariateNormal(law.means[0], scale_tril=law.factors[0]) for law in (own, other))
    found = steps(own, other)
    spread = math.sqrt(sum((step.high - step.value) ** 2 for step in found))
    assert sum(step.value for step in found) == pytest.approx(kl_divergence(p, q).item(), abs=2 * spread)
    assert spread < 0.03


def test_true_contexts_give_every_step_of_the_forward_kl():
    """The context has variance 1 at every frame: KL(N(a x, 1 - a^2) || N(c x, s^2))."""
    noise = 1 - SLOPE**2
    expected = [of_gaussians(1, S1**2)] + [of_gaussians(noise, S**2, (SLOPE - C) ** 2)] * (FRAMES - 1)
    for step, exact in zip(steps(DATA, STUDENT), expected, strict=True):
        assert step.value == pytest.approx(exact, abs=2 * (step.high - step.value))


def test_own_contexts_give_every_step_of_the_reverse_kl():
    """The context has the student's own variance, v_f = c^2 v_{f-1} + s^2."""
    noise, variance, expected = 1 - SLOPE**2, S1**2, [of_gaussians(S1**2, 1)]
    while len(expected) < FRAMES:
        expected.append(of_gaussians(S**2, noise, (SLOPE - C) ** 2 * variance))
        variance = C**2 * variance + S**2
    for step, exact in zip(steps(STUDENT, DATA), expected, strict=True):
        assert step.value == pytest.approx(exact, abs=2 * (step.high - step.value))
    assert expected[1] - expected[5] > 0.02  # what tells own contexts from true ones
