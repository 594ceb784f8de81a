"""Students too small to fit: moments, reparameterised samples and denoisers in closed form."""

import pytest
import torch

from pipeline.data.processes_mixture import IndependentPixels, gaussian
from pipeline.diffusion.schedule import FlowMatching
from pipeline.models.linear_gaussian import LinearGaussianSpec, LinearGaussianStudent, check_student


def frame_by_frame(num_frames=3):
    spec = LinearGaussianSpec("frame_by_frame", num_frames)
    return LinearGaussianStudent(spec, m1=0.3, s1=0.8, c=0.6, m2=-0.2, s2=0.5)


def test_the_tied_student_has_the_covariance_of_its_chain():
    """Var x_f = c^2 Var x_{f-1} + s^2 and Cov(x_f, x_g) = c^(f-g) Var x_g."""
    student = LinearGaussianStudent(LinearGaussianSpec("tied", 3), s1=0.9728, c=0.8608, s=0.4977)
    variances = [0.9728**2]
    for _ in range(2):
        variances.append(0.8608**2 * variances[-1] + 0.4977**2)
    covariance = student.covariance()
    assert covariance.diagonal().tolist() == pytest.approx(variances)
    assert covariance[2].tolist() == pytest.approx([0.8608**2 * variances[0], 0.8608 * variances[1], variances[2]])
    assert student.mean().tolist() == [0, 0, 0]


def test_the_mean_follows_the_chain():
    means = [0.3, 0.6 * 0.3 - 0.2]
    means.append(0.6 * means[-1] - 0.2)
    assert frame_by_frame().mean().tolist() == pytest.approx(means)


def test_samples_have_the_moments_and_carry_the_gradient(rng):
    student = frame_by_frame()
    x = student.sample(30_000, (1, 1, 1), rng)
    flat = x.detach().reshape(-1, 3)
    assert torch.allclose(flat.mean(0), student.mean(), atol=0.02)
    assert torch.allclose(torch.cov(flat.mT), student.covariance(), atol=0.02)
    x[:, 1].mean().backward()
    slopes = {name: p.grad.item() for name, p in student.values.items()}
    assert slopes["m1"] == pytest.approx(0.6)  # d mean_2 / d m1 = c
    assert slopes["m2"] == pytest.approx(1.0)
    assert slopes["c"] == pytest.approx(0.3, abs=0.02)  # m1


def test_the_next_frame_continues_the_chain(rng):
    student = frame_by_frame()
    previous = torch.full((20_000, 1, 1, 1, 1), 2.0, dtype=torch.float64)
    following = student.next_frame(previous, rng)
    assert following.mean().item() == pytest.approx(0.6 * 2 - 0.2, abs=0.02)
    assert following.std().item() == pytest.approx(0.5, abs=0.02)


def test_the_denoiser_is_that_of_the_students_own_law(rng):
    """A mixture of one component with the same moments, denoised by the other formula."""
    student = frame_by_frame()
    own = IndependentPixels(gaussian(student.mean(), torch.linalg.cholesky(student.covariance())), (1, 2, 1))
    x_t = torch.randn(4, 3, 1, 2, 1, generator=rng, dtype=torch.float64)
    t = torch.rand(4, 3, generator=rng, dtype=torch.float64)
    t[0] = 0
    assert torch.allclose(student(x_t, t), own.denoise(x_t, FlowMatching().at(t)), atol=1e-9)
    assert torch.allclose(student(x_t, t)[0], x_t[0], atol=1e-9)


def test_the_denoiser_minimises_the_denoising_loss_on_the_students_samples(rng):
    """Its parameters moved either way denoise worse."""
    student = frame_by_frame(2)
    x0 = student.sample(20_000, (1, 1, 1), rng).detach()
    t = torch.full((20_000, 2), 0.5, dtype=torch.float64)
    x_t = 0.5 * x0 + 0.5 * torch.randn(x0.shape, generator=rng, dtype=torch.float64)
    best = (student(x_t, t) - x0).square().mean().item()
    with torch.no_grad():
        for name, value in student.values.items():
            for moved in (0.7, 1.4):
                value.mul_(moved)
                assert (student(x_t, t) - x0).square().mean().item() > best, name
                value.div_(moved)


def test_a_negative_standard_deviation_means_the_same():
    spec = LinearGaussianSpec("gaussian", 1)
    two = [LinearGaussianStudent(spec, m=0.1, s=s).covariance() for s in (0.7, -0.7)]
    assert torch.equal(*two)


@pytest.mark.parametrize(
    ("student", "num_frames", "match"),
    [
        ("gaussian", 2, "num_frames must be 1 for the student gaussian, got 2"),
        ("tied", 1, "num_frames must be at least 2, got 1"),
        ("transformer", 2, "student must be one of gaussian, frame_by_frame, tied"),
    ],
)
def test_a_student_that_cannot_be_is_refused(student, num_frames, match):
    with pytest.raises(ValueError, match=match):
        check_student(student, num_frames)


def test_missing_parameters_are_named():
    with pytest.raises(ValueError, match="must be m, s, got m"):
        LinearGaussianStudent(LinearGaussianSpec(), m=0.0)
