import pytest
import torch

from pipeline.evaluation.frechet import frechet_distance, moments, moments_distance


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("num_samples", [500, 30], ids=["full rank", "fewer samples than dimensions"])
def test_distance_of_equal_sets_is_zero(rng, num_samples):
    x = 10 * normal(rng, num_samples, 40)
    assert abs(frechet_distance(x, x.clone())) < 1e-10 * x.var(dim=0).sum()


@pytest.mark.parametrize("num_samples", [500, 30])
def test_distance_of_a_shift_is_its_squared_length(rng, num_samples):
    x, shift = normal(rng, num_samples, 40), normal(rng, 40)
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-10)


@pytest.mark.parametrize("num_samples", [500, 30])
def test_distance_of_a_symmetric_map_is_the_closed_form(rng, num_samples):
    """S2 = T S1 T, T positive, makes (S1^1/2 S2 S1^1/2)^1/2 = S1^1/2 T S1^1/2, of trace tr T S1; singular too."""
    x, root = normal(rng, num_samples, 40), normal(rng, 40, 40) / 6
    transport = root @ root.T + 0.1 * torch.eye(40, dtype=torch.float64)
    y = (x - x.mean(0)) @ transport + x.mean(0)
    s1, s2 = torch.cov(x.T), torch.cov(y.T)
    closed_form = s1.trace() + s2.trace() - 2 * (transport @ s1).trace()
    assert frechet_distance(x, y) == pytest.approx(float(closed_form), rel=1e-9)


def test_distance_of_commuting_gaussians_is_that_of_their_deviations(rng):
    x = normal(rng, 4000, 3)
    x = torch.linalg.qr(x - x.mean(0)).Q * (len(x) - 1) ** 0.5  # covariance exactly 1
    a, b = (torch.tensor(deviations, dtype=torch.float64) for deviations in ([1.0, 2.0, 0.0], [3.0, 2.0, 5.0]))
    assert frechet_distance(a * x, b * x) == pytest.approx(4 + 0 + 25, rel=1e-10)


def test_distance_of_samples_approaches_that_of_their_gaussians(rng):
    n, deviation, shift = 60_000, 1.5, 0.5
    x, y = normal(rng, n, 4), deviation * normal(rng, n, 4) + shift
    assert frechet_distance(x, y) == pytest.approx(4 * ((deviation - 1) ** 2 + shift**2), rel=0.03)


def test_distance_is_symmetric(rng):
    x, y = normal(rng, 20, 40), 2 * normal(rng, 300, 40) + 1
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)


def test_weighted_moments_are_those_of_repeated_samples(rng):
    x = normal(rng, 12, 5)
    counts = torch.tensor([0, 3, 1, 1, 0, 2, 0, 1, 1, 1, 2, 0], dtype=torch.float64)
    repeated = x.repeat_interleave(counts.long(), dim=0)
    assert abs(moments_distance(moments(x, counts), moments(repeated))) < 1e-12


def test_moments_of_a_single_sample_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        moments(torch.zeros(1, 3, dtype=torch.float64))
