"""Blurred transport against closed forms: of Gaussians at any blur, and of mixtures as the blur vanishes."""

import math

import pytest
import torch

from pipeline.data.processes_mixture import GaussianMixture, gaussian
from pipeline.laboratory.sinkhorn import SinkhornDivergence, TransportError

BLUR = 0.4


def _factor(s1, c, s2):
    return torch.tensor([[s1, 0.0], [c * s1, s2]], dtype=torch.float64)


def test_sinkhorn_divergence_of_a_gaussian_from_itself_is_zero_at_any_blur():
    factor = _factor(0.8, 0.5, 0.6)
    data = gaussian(torch.tensor([3.0, -2.0], dtype=torch.float64), factor)
    for blur in (BLUR, 2 * BLUR):
        assert SinkhornDivergence(data, blur)(factor).item() == pytest.approx(0, abs=2e-5)


def test_sinkhorn_divergence_of_gaussians_is_their_closed_form():
    """Uncorrelated frames: each alone. OT couples variances a and b with covariance c, 2 c^2 + blur c = 2 a b."""

    def transport(a, b):
        c = (math.sqrt(BLUR**2 + 16 * a * b) - BLUR) / 4
        return a + b - 2 * c - BLUR / 2 * math.log(1 - c**2 / (a * b))

    data, student = (0.9, 1.2), (0.5, 0.7)
    expected = sum(
        transport(a, b) - (transport(a, a) + transport(b, b)) / 2 for a, b in zip(data, student, strict=True)
    )
    factors = [torch.diag(torch.tensor(variances, dtype=torch.float64).sqrt()) for variances in (data, student)]
    divergence = SinkhornDivergence(gaussian(torch.zeros(2, dtype=torch.float64), factors[0]), BLUR)
    assert divergence(factors[1]).item() == pytest.approx(expected, abs=1e-4)


def test_sinkhorn_divergence_has_the_gradient_of_its_value():
    shares = torch.tensor([0.6, 0.4], dtype=torch.float64)
    means = torch.tensor([[0.0, 0.0], [1.5, -1.0]], dtype=torch.float64)
    data = GaussianMixture(shares, means, torch.stack([_factor(0.5, 0.9, 0.4), _factor(0.7, -0.3, 0.5)]))
    divergence = SinkhornDivergence(data, BLUR)
    factor = _factor(0.9, 0.2, 0.6).requires_grad_()
    (slope,) = torch.autograd.grad(divergence(factor), factor)
    for row, column in ((0, 0), (1, 0), (1, 1)):
        moved = torch.zeros(2, 2, dtype=torch.float64)
        moved[row, column] = 1e-4
        difference = (divergence(factor.detach() + moved) - divergence(factor.detach() - moved)).item() / 2e-4
        assert slope[row, column].item() == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize("distance", [4.0, 20.0])
def test_modes_far_apart_are_no_way_from_themselves(distance):
    """Data that two modes share are transported to themselves: nothing crosses, however far apart the modes are.

    OT(q, q) is then that of one mode, and its blur pays for the mode that every point has, too: blur ln 2.
    """
    factor, shares = _factor(0.3, 0.9, 0.3), torch.tensor([0.5, 0.5], dtype=torch.float64)
    means = torch.tensor([[-distance / 2] * 2, [distance / 2] * 2], dtype=torch.float64)
    both = SinkhornDivergence(GaussianMixture(shares, means, factor.expand(2, -1, -1)), BLUR)
    alone = SinkhornDivergence(gaussian(means[0], factor), BLUR)
    assert both._to_itself.item() == pytest.approx(alone._to_itself.item() + BLUR * math.log(2), abs=1e-5)


def test_a_student_far_too_narrow_overflows_and_says_so():
    wide = gaussian(torch.zeros(2, dtype=torch.float64), _factor(3.0, 0.0, 3.0))
    with pytest.raises(TransportError, match="overflows at blur"):
        SinkhornDivergence(wide, BLUR)(_factor(0.1, 0.0, 0.1))
