"""Predicted optima against closed forms and quadratures of others, and against themselves."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from pipeline.data.processes import LinearGaussian
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.divergences import REVERSE_KL, Restored, value_of
from pipeline.laboratory.optima import Laboratory, objectives_for
from pipeline.laboratory.quadrature import FINE, clean, normal_nodes
from pipeline.models.linear_gaussian import STUDENTS, Chain
from tests.processes import PROCESSES

# source: closed form (moments), else quadrature of another implementation in float64
SKEWED_OPTIMA = {
    "forward_kl": (0.208266823, 0.5, 1.08972474),
    "reverse_kl": (0.176029528, 0.147944511, 0.630934864),
    "jensen_shannon": (0.0508906909, 0.338517087, 0.858703034),
    "softened_reverse_kl": (0.0635575907, 0.0982577332, 0.578382673),
    "fisher": (0.430744868, -0.00289325333, 0.517488197),
    "forward_kl_averaged": (0.0653993399, 0.5, 1.08972474),
    "reverse_kl_averaged": (0.065330976, 0.322526496, 0.786218999),
    "reverse_kl_averaged_x0": (0.0108416812, 0.491902551, 0.992766511),
    "jensen_shannon_averaged": (0.0161926216, 0.444386644, 0.972739331),
    "softened_reverse_kl_averaged": (0.0271041597, 0.208332626, 0.665732525),
    "fisher_averaged_x0": (0.0235686504, 0.486798741, 0.979211873),
    "entropy_-0.5_averaged": (None, 0.737321842, 1.25905405),
    "entropy_-0.2_averaged": (None, 0.522495671, 1.01508909),
    "entropy_0.2_averaged": (None, 0.179626835, 0.574972353),
    "entropy_0.5_averaged": (None, 0.0983878957, 0.354384752),
    "entropy_0.8_averaged": (None, 0.0737722263, 0.159542079),
    "entropy_1_averaged": (None, 0.07, 0.0),
    "sid_0": (None, 0.456155614, 0.913662398),
    "sid_1": (None, 0.497471599, 1.0335297),
    "sid_1.2": (None, 0.497008572, 1.05573174),
    "dmd_normalised": (None, 0.481701938, 0.954865668),
    "wasserstein": (0.12819149, 0.499949996, 1.02922707),
    "l2_eps_bidirectional": (None, 0.5, 1.08972474),
}
# source: closed form where both are Gaussian, else quadrature of another implementation; s1, c, s
LINEAR_OPTIMA = {
    "forward_kl": (1.0, 0.8333, 0.5528),
    "reverse_kl": (0.9728, 0.8608, 0.4977),
    "jensen_shannon": (0.9881, 0.8494, 0.5226),
    "softened_reverse_kl": (0.9671, 0.8696, 0.4802),
    "teacher_forcing_reverse_kl": (1.0, 0.8333, 0.5207),
    "reverse_kl_averaged": (0.9898, 0.8749, 0.4803),
    "reverse_kl_averaged_x0": (0.9922, 0.8920, 0.4472),
    "reverse_kl_averaged_independent": (0.9961, 0.882, 0.4705),
    "forward_kl_averaged_independent": (1.0005, 0.8717, 0.4914),
    "self_forcing_detached_reverse_kl": (0.7136, 0.6520, 0.5236),
    "self_forcing_detached_reverse_kl_averaged": (0.8522, 0.7692, 0.5353),
    "self_forcing_detached_reverse_kl_averaged_x0": (0.9964, 0.8480, 0.5161),
    "l2_elbo_bidirectional": (1.0, 0.8333, 0.5528),
    "l2_eps_bidirectional": (1.0005, 0.8433, 0.5378),
    "l2_flow_bidirectional": (1.0071, 0.8577, 0.5173),
    "l2_elbo_teacher_forcing": (1.0, 0.8333, 0.5528),
    "l2_eps_teacher_forcing": (1.0, 0.8333, 0.5528),
    "l2_flow_teacher_forcing": (1.0, 0.8333, 0.5528),
    "l2_elbo_diffusion_forcing": (0.9967, 0.8593, 0.5120),
    "l2_eps_diffusion_forcing": (0.9972, 0.8623, 0.5066),
    "l2_flow_diffusion_forcing": (1.0005, 0.8732, 0.4871),
}


@pytest.fixture(scope="module")
def laboratories():
    torch.set_num_threads(1)
    students = {"A": "gaussian", "B": "gaussian", "C": "frame_by_frame", "D": "frame_by_frame", "L": "tied"}
    return {name: Laboratory(PROCESSES[name].law, student) for name, student in students.items()}


@pytest.mark.parametrize("name", SKEWED_OPTIMA)
def test_optima_of_the_skewed_mixture_are_the_known_ones(laboratories, name):
    value, *expected = SKEWED_OPTIMA[name]
    found = laboratories["A"].predict(name)
    assert list(found.best.parameters.values()) == pytest.approx(expected, abs=1e-3)
    if value is not None:
        assert found.best.value == pytest.approx(value, abs=1e-4)
    assert found.integration_error < 1e-4


@pytest.mark.parametrize("name", LINEAR_OPTIMA)
def test_optima_of_the_linear_gaussian_process_are_the_known_ones(laboratories, name):
    found = laboratories["L"].predict(name)
    assert list(found.best.parameters.values()) == pytest.approx(LINEAR_OPTIMA[name], abs=1e-3)


def test_the_clean_fisher_divergence_has_a_second_optimum_far_out(laboratories):
    (other,) = laboratories["A"].predict("fisher").others
    assert list(other.parameters.values()) == pytest.approx([2.71532638, 0.867100844], abs=1e-3)
    assert other.value == pytest.approx(1.38891006, abs=1e-4)


def test_divergences_at_the_optima_of_the_linear_process(laboratories):
    """Closed forms of Gaussians: forward KL .17435 at its optimum; reverse .16798, where the forward is .21515."""
    assert laboratories["L"].predict("forward_kl").best.value == pytest.approx(0.17435, abs=1e-5)
    reverse = laboratories["L"].predict("reverse_kl")
    assert (reverse.best.value, reverse.forward_kl) == pytest.approx((0.16798, 0.21515), abs=1e-5)
    detached = laboratories["L"].predict("self_forcing_detached_reverse_kl")
    assert (detached.reverse_kl, detached.forward_kl) == pytest.approx((0.32553, 0.50778), abs=1e-4)
    assert detached.best.value is None


def test_the_clean_reverse_kl_seeks_one_of_two_modes_and_noise_makes_it_cover_both(laboratories):
    clean = laboratories["B"].predict("reverse_kl")
    averaged = laboratories["B"].predict("reverse_kl_averaged")
    assert clean.kept[1] < 0.05
    assert averaged.kept[1] > 0.3
    assert clean.others  # a worse optimum between the modes
    assert clean.others[0].value > clean.best.value


@pytest.mark.parametrize(
    ("process", "name"), [("B", "reverse_kl"), ("B", "softened_reverse_kl"), ("D", "reverse_kl")]
)
def test_an_optimum_is_one_by_independent_integration(laboratories, process, name):
    """Random draws instead of nodes: no move of a parameter makes the Monte Carlo estimate better."""
    best = laboratories[process].predict(name).best.parameters
    law, form = PROCESSES[process].law, STUDENTS[laboratories[process].student]
    z = torch.randn(200_000, law.num_frames, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = torch.cat([z, -z])

    def estimate(values):
        chain = form.chain(*torch.tensor(values, dtype=torch.float64))
        factor = chain.factor(law.num_frames)
        x = chain.mean(law.num_frames) + z @ factor.mT
        log_p = -z.square().sum(1) / 2 - factor.diagonal().log().sum() - law.num_frames * math.log(2 * math.pi) / 2
        ratio = log_p - law.log_density(x)
        return ratio.mean().item() if name == "reverse_kl" else _softened(ratio)

    here = estimate(list(best.values()))
    for moved in 0.1 * np.vstack([np.eye(len(best)), -np.eye(len(best))]):
        assert estimate(list(np.array(list(best.values())) + moved)) > here


def _softened(ratio):
    """2 KL(m || q) = E_p softplus(r) + E_q softplus(r) - 2 ln 2, and E_q f = E_p exp(-r) f."""
    softplus = torch.nn.functional.softplus(ratio)
    return ((1 + (-ratio).exp()) * softplus).mean().item() - 2 * math.log(2)


def test_a_persistent_mode_is_kept_by_the_forward_and_lost_by_the_clean_reverse_kl(laboratories):
    assert laboratories["D"].predict("forward_kl").kept[1] > 0.25
    assert laboratories["D"].predict("reverse_kl").kept[1] < 0.25 / 3


def test_teacher_forcing_differs_from_self_forcing_on_the_persistent_mode_alone(laboratories):
    """Where the misfit does not depend on the context both have one optimum."""
    for process, apart in (("C", False), ("D", True)):
        pair = [
            laboratories[process].predict(name).best.parameters
            for name in ("reverse_kl", "teacher_forcing_reverse_kl")
        ]
        largest = max(abs(pair[0][name] - pair[1][name]) for name in pair[0])
        assert (largest > 0.1) == apart
        assert (largest < 1e-4) == (not apart)


def test_a_detached_context_changes_nothing_where_each_frame_has_its_own_parameters(laboratories):
    full = laboratories["D"].predict("reverse_kl").best.parameters
    detached = laboratories["D"].predict("self_forcing_detached_reverse_kl").best.parameters
    assert list(detached.values()) == pytest.approx(list(full.values()), abs=1e-5)


def test_the_law_of_restored_data_is_no_law_of_clips():
    """A student that is right; half of the clips end on a clean frame that knows nothing of its first: r is not q.

    r = q(x_1) (q(x_2 | x_1) + q(x_2)) / 2, by trapezoids.
    """
    truth = Chain(*(torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0, 0.8, 0.0, 0.6)))
    cleaned = Independent(clean_probability=0.5, first_clean_probability=0.0)
    clips = Restored(LinearGaussian((0.8,), 2).law, clean(2), normal_nodes(2, FINE), cleaned)
    first, second = np.meshgrid(*[np.linspace(-8, 8, 1601)] * 2)
    q = norm.pdf(second, 0.8 * first, 0.6)
    r = (q + norm.pdf(second)) / 2
    kl = (norm.pdf(first) * r * np.log(r / q)).sum() * 1e-4
    assert value_of(REVERSE_KL, clips, truth).item() == pytest.approx(kl, abs=1e-5)


@pytest.mark.parametrize("process", ["C", "D"])
def test_the_forward_kl_of_two_frames_matches_moments(laboratories, process):
    """Closed form: five parameters are all of a Gaussian of two frames."""
    law = PROCESSES[process].law
    found = laboratories[process].predict("forward_kl").best.parameters
    slope = law.covariance[0, 1] / law.covariance[0, 0]
    rest = law.covariance[1, 1] - slope * law.covariance[0, 1]
    expected = [law.mean[0], law.covariance[0, 0].sqrt(), slope, law.mean[1] - slope * law.mean[0], rest.sqrt()]
    assert list(found.values()) == pytest.approx([float(x) for x in expected], abs=1e-5)


def test_values_grow_with_pixels_and_parameters_do_not(laboratories):
    many = Laboratory(PROCESSES["B"].law, "gaussian", num_pixels=12).predict("jensen_shannon")
    one = laboratories["B"].predict("jensen_shannon")
    assert many.best.parameters == one.best.parameters
    assert many.best.value == pytest.approx(12 * one.best.value, rel=1e-12)
    assert many.reverse_kl == pytest.approx(12 * one.reverse_kl, rel=1e-12)


def test_the_clean_reverse_kl_on_the_line_agrees_with_adaptive_quadrature(laboratories):
    found = laboratories["B"].predict("reverse_kl").best
    m, s = found.parameters["m"], found.parameters["s"]
    law = PROCESSES["B"].law

    def integrand(x):
        log_p = -(((x - m) / s) ** 2) / 2 - math.log(s * math.sqrt(2 * math.pi))
        return math.exp(log_p) * (log_p - law.log_density(torch.tensor([x], dtype=torch.float64)).item())

    assert quad(integrand, m - 9 * s, m + 9 * s)[0] == pytest.approx(found.value, abs=1e-7)


def test_objectives_without_meaning_are_not_predicted(laboratories):
    longer = dataclasses.replace(PROCESSES["C"], num_frames=3).law
    assert "wasserstein" not in objectives_for(longer)
    assert "teacher_forcing_reverse_kl" not in objectives_for(PROCESSES["A"].law)
    with pytest.raises(ValueError, match="objective must be one of forward_kl"):
        Laboratory(longer, "frame_by_frame").predict("wasserstein")
