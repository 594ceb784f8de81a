"""The squared Wasserstein-2 distance against closed forms: of Gaussians, and of a mixture on the line, turned."""

import dataclasses
import math

import pytest
import torch

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.optima import Laboratory
from pipeline.laboratory.quadrature import CHECK, FINE
from pipeline.laboratory.wasserstein import squared_wasserstein
from pipeline.models.linear_gaussian import STUDENTS, Chain
from tests.processes import PROCESSES

ANGLE, STD = 0.6, 0.4  # by which a line is turned in the plane of two frames, and across it
SKEWED = (0.12819149, 1.02922714)  # of process A: W2^2 at its optimum, and the s there: E[x Phi^-1(Q(x))]


def _chain(*values):
    return Chain(*(torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values))


def _turned():
    """x = R (y, STD e), y of process A, R a rotation, which W2 does not see: frames that depend on each other."""
    line = PROCESSES["A"].law
    cosine, sine = math.cos(ANGLE), math.sin(ANGLE)
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    means = torch.nn.functional.pad(line.means, (0, 1)) @ rotation.mT
    spreads = [torch.diag(torch.tensor([std, STD], dtype=torch.float64)) for std in line.factors[:, 0, 0].tolist()]
    covariances = torch.stack([rotation @ spread.square() @ rotation.mT for spread in spreads])
    law = GaussianMixture(line.shares, means, torch.linalg.cholesky(covariances))
    best = rotation @ torch.diag(torch.tensor([SKEWED[1], STD], dtype=torch.float64)).square() @ rotation.mT
    factor = torch.linalg.cholesky(best)
    slope = (factor[1, 0] / factor[0, 0]).item()
    shift = (law.mean[1] - slope * law.mean[0]).item()
    return law, (law.mean[0].item(), factor[0, 0].item(), slope, shift, factor[1, 1].item())


def test_wasserstein_of_gaussian_clips_vanishes_where_they_agree():
    first = PROCESSES["L"].law.first(2)
    chain = STUDENTS["tied"].chain(*torch.tensor([1.0, 0.8333333333, math.sqrt(1 - 0.8333333333**2)]).double())
    assert squared_wasserstein(first, FINE)(chain).item() == pytest.approx(0, abs=1e-9)


def test_wasserstein_of_two_frames_is_that_of_gaussians_where_components_agree():
    one = PROCESSES["L"].law.first(2)
    split = GaussianMixture(
        torch.tensor([0.3, 0.7], dtype=torch.float64), one.means.expand(2, -1), one.factors.expand(2, -1, -1)
    )
    chain = _chain(0.2, 0.8, 0.6, -0.1, 0.7)
    exact = squared_wasserstein(one, CHECK)(chain).item()
    assert squared_wasserstein(split, CHECK)(chain).item() == pytest.approx(exact, abs=1e-4)


def test_wasserstein_of_two_frames_is_stationary_and_right_at_the_optimum_of_a_turned_line():
    law, best = _turned()
    chain = _chain(*best)
    value = squared_wasserstein(law, FINE)(chain)
    assert value.item() == pytest.approx(SKEWED[0], abs=1e-4)
    slopes = torch.autograd.grad(value, (chain.m1, chain.s1, chain.c, chain.m2, chain.s2))
    assert max(abs(slope.item()) for slope in slopes) < 2e-4


@pytest.mark.slow
def test_the_optimum_of_a_turned_line_is_found_within_the_error_that_is_stated():
    law, best = _turned()
    found = Laboratory(law, "frame_by_frame").predict("wasserstein")
    assert list(found.best.parameters.values()) == pytest.approx(best, abs=1e-4)
    assert found.integration_error < 5e-4


def test_wasserstein_of_longer_mixtures_is_not_known():
    longer = dataclasses.replace(PROCESSES["C"], num_frames=3).law
    with pytest.raises(ValueError, match="data must have at most two frames or one component"):
        squared_wasserstein(longer, FINE)
