"""The families of processes: their moments in closed form, at any number of frames, and what they refuse."""

import dataclasses

import pytest
import torch

from pipeline.data.processes import LinearGaussian, LineMixture, MixtureAutoregression, PersistentModes
from tests.processes import PROCESSES


def test_the_skewed_mixture_has_its_known_moments():
    law = PROCESSES["A"].law
    assert law.mean.item() == pytest.approx(0.5)
    assert law.covariance.sqrt().item() == pytest.approx(1.08972474, abs=1e-8)


def test_the_linear_gaussian_process_has_the_autocorrelation_of_yule_walker():
    """Closed form of phi = (.5, .4): rho_1 = .5 / (1 - .4), then the recursion."""
    law = PROCESSES["L"].law
    expected = [1, 0.833333333, 0.816666667, 0.741666667]
    assert law.covariance[0].tolist() == pytest.approx(expected, abs=1e-8)
    assert law.covariance[2].tolist() == pytest.approx([expected[2], expected[1], 1, expected[1]], abs=1e-8)


@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_a_mixture_autoregression_has_two_components_for_every_frame(num_frames):
    process = dataclasses.replace(PROCESSES["C"], num_frames=num_frames)
    assert process.law.means.shape == (2**num_frames, num_frames)


def test_a_mixture_autoregression_carries_moments_forward():
    """E x_f = .8 E x_{f-1} + E u and Var x_f = .64 Var x_{f-1} + Var u, with E u = .05, Var u from its mixture."""
    law = dataclasses.replace(PROCESSES["C"], num_frames=3).law
    var_u = 0.7 * (0.3**2 + 0.4**2) + 0.3 * (0.5**2 + 1.1**2) - 0.05**2
    for f in (1, 2):
        assert law.mean[f].item() == pytest.approx(0.8 * law.mean[f - 1].item() + 0.05)
        assert law.covariance[f, f].item() == pytest.approx(0.64 * law.covariance[f - 1, f - 1].item() + var_u)
        assert law.covariance[f, f - 1].item() == pytest.approx(0.8 * law.covariance[f - 1, f - 1].item())


def test_a_mode_persists_over_all_frames():
    """Two components at any length; the second follows 1.5 - .3 x."""
    law = dataclasses.replace(PROCESSES["D"], num_frames=5).law
    assert law.shares.tolist() == [0.75, 0.25]
    means = [2.0]
    for _ in range(4):
        means.append(1.5 - 0.3 * means[-1])
    assert law.means[1].tolist() == pytest.approx(means)
    assert law.covariances[0, 1, 1].item() == pytest.approx(0.81 * 0.25 + 0.09)


def test_first_frames_do_not_depend_on_the_length():
    for name in ("C", "D", "L"):
        long = dataclasses.replace(PROCESSES[name], num_frames=4).law.first(2)
        short = dataclasses.replace(PROCESSES[name], num_frames=2).law
        x = torch.tensor([[0.3, -0.2], [2.0, 1.0]], dtype=torch.float64)
        assert torch.allclose(long.log_density(x), short.log_density(x), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LineMixture((0.5, 0.5), (0.0,), (1.0, 1.0)), "one a component"),
        (lambda: LineMixture((0.5, 0.4), (0.0, 1.0), (1.0, 1.0)), "sum to 1"),
        (lambda: LineMixture((1.0,), (0.0,), (0.0,)), r"stds\[0\] must be above 0, got 0.0"),
        (lambda: LineMixture((1.0,), (0.0,), (1.0,), num_frames=2), "num_frames must be 1"),
        (lambda: LinearGaussian((0.7, 0.4)), "stationary"),
        (lambda: PersistentModes((1.0,), ()), "one a mode"),
        (lambda: dataclasses.replace(PROCESSES["C"], num_frames=0), "num_frames must be at least 1, got 0"),
    ],
)
def test_what_makes_no_process_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_the_first_frame_of_a_mixture_autoregression_is_its_own():
    process = PROCESSES["C"]
    assert isinstance(process, MixtureAutoregression)
    x = torch.linspace(-2, 4, 13, dtype=torch.float64)[:, None]
    assert torch.allclose(process.law.first(1).log_density(x), process.first.law.log_density(x), atol=1e-12)
