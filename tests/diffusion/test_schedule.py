import math

import pytest
import torch

from pipeline.diffusion.log_snr import FAMILIES, check_level, coefficients
from pipeline.diffusion.schedule import (
    SCHEDULES,
    Cosine,
    Ddpm,
    EdmSampling,
    EdmTraining,
    FlowMatching,
    LogitNormal,
    VpLinear,
    add_noise,
)

T = [0.1, 0.3, 0.5, 0.9]
# Of each schedule: log-SNRs at T, and the densities at the first three of them.
VALUES = {
    "cosine": (Cosine(), [3.68546007, 1.34855096, 0, -3.68546007], [0.0491815822, 0.128759054, 0.159154943]),
    "shifted cosine": (
        Cosine(log_shift=math.log(0.5)),
        [2.29916571, -0.0377434059, -1.38629436, -5.07175443],
        [0.0491815822, 0.128759054, 0.159154943],
    ),
    "edm_training": (
        EdmTraining(),
        [5.47572376, 3.65856123, 2.4, -0.675723757],
        [0.073124305, 0.144871923, 0.16622595],
    ),
    "edm_sampling": (
        EdmSampling(),
        [8.18220924, 2.28962689, -1.84471974, -7.62722033],
        [0.0272977162, 0.0415834305, 0.0558691448],
    ),
    "flow_matching": (FlowMatching(), [4.39444915, 1.69459572, 0, -4.39444915], [0.045, 0.105, 0.125]),
    "logit_normal": (
        LogitNormal(),
        [2.56310313, 1.04880103, 0, -2.56310313],
        [0.087749166, 0.173846307, 0.19947114],
    ),
    "flow_matching shifted": (
        FlowMatching(shift=5.0),
        [1.17557333, -1.5242801, -3.21887582, -7.61332498],
        [0.045, 0.105, 0.125],
    ),
    "vp_linear": (
        VpLinear(),
        [2.15658119, -0.420767106, -2.45513547, -8.14921108],
        [0.0496257587, 0.0994508727, 0.0916354415],
    ),
}
CONTINUOUS = [schedule for schedule, _, _ in VALUES.values()]


@pytest.mark.parametrize("name", VALUES)
def test_log_snr_and_density_are_those_of_the_closed_form(name):
    schedule, expected, densities = VALUES[name]
    found = schedule.log_snr(torch.tensor(T, dtype=torch.float64))
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-8)
    density = schedule.density(found[:3])
    assert torch.allclose(density, torch.tensor(densities, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=str)
def test_level_inverts_log_snr(schedule):
    t = torch.linspace(1e-3, 1 - 1e-3, 999, dtype=torch.float64)
    assert (schedule.level(schedule.log_snr(t)) - t).abs().max() < 1e-12


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=str)
def test_density_is_the_slope_of_the_inverse_and_integrates_to_one(schedule):
    x = schedule.log_snr(torch.linspace(0.01, 0.99, 99, dtype=torch.float64))
    slope = -(schedule.level(x + 1e-5) - schedule.level(x - 1e-5)) / 2e-5
    assert (schedule.density(x) - slope).abs().max() < 1e-6
    low, high = (max(-150.0, schedule.range[0]), min(150.0, schedule.range[1]))
    x = torch.linspace(low, high, 200_001, dtype=torch.float64)
    assert abs(torch.trapezoid(schedule.density(x), x) - 1) < 1e-4


@pytest.mark.parametrize("name", SCHEDULES)
def test_level_zero_is_clean_and_levels_have_a_place(name):
    schedule = SCHEDULES[name]()
    x, eps = torch.randn(1, 3, 1, 2, 2), torch.randn(1, 3, 1, 2, 2)
    assert torch.equal(add_noise(schedule, x, eps, torch.zeros(1, 3)), x)
    alpha, sigma = schedule.at(torch.tensor([[0.2, 0.5, 0.9]]))
    assert (alpha**2 / sigma**2).log().flatten().tolist() == pytest.approx(
        schedule.log_snr(torch.tensor([0.2, 0.5, 0.9])).tolist(), abs=1e-4
    )


def test_flow_matching_ends_in_pure_noise():
    x, eps = torch.randn(1, 3, 1, 2, 2), torch.randn(1, 3, 1, 2, 2)
    assert torch.equal(add_noise(FlowMatching(), x, eps, torch.ones(1, 3)), eps)


def test_shift_five_warps_the_four_steps_of_self_forcing():
    _, sigma = FlowMatching(shift=5.0).at(torch.tensor([[1.0, 0.75, 0.5, 0.25]]))
    assert sigma.flatten().tolist() == pytest.approx([1.0, 0.9375, 0.8333333, 0.625])


def test_flow_families_agree_with_the_straight_path():
    t = torch.linspace(0, 1, 11)[None]
    alpha, sigma = FlowMatching().at(t)
    assert torch.allclose(sigma.flatten(), t.flatten(), atol=1e-7)
    assert torch.allclose(alpha.flatten(), 1 - t.flatten(), atol=1e-7)


def test_vp_linear_is_what_flow_matching_libraries_return():
    """facebookresearch/flow_matching VPScheduler at its own t = .1, .5, .9, which is 1 - t here."""
    alpha, sigma = VpLinear().at(torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64))
    assert alpha.flatten().tolist() == pytest.approx([0.0169964633, 0.281182881, 0.946721799], abs=4e-9)
    assert sigma.flatten().tolist() == pytest.approx([0.99985555, 0.959654202, 0.322052536], abs=4e-9)


def test_vp_linear_has_the_sigmas_of_edm():
    """NVlabs/edm VPPrecond.sigma at t."""
    log_snr = VpLinear().log_snr(torch.tensor([0.001, 0.25, 0.5, 1.0], dtype=torch.float64))
    expected = [0.0104859928, 0.953710704, 3.41291831, 152.16697]
    assert torch.exp(-log_snr / 2).tolist() == pytest.approx(expected, rel=1e-7)


def test_edm_sampling_gives_the_eighteen_sigmas_of_edm():
    """diffusers EDMEulerScheduler, 18 steps, which ends at sigma_min: u = 1 - i / 17."""
    u = 1 - torch.arange(18, dtype=torch.float64) / 17
    sigmas = torch.exp(-EdmSampling().log_snr(u) / 2)
    expected = [80.0, 57.5859833, 40.7855721, 28.3745842, 19.3524532, 12.9100828, 8.40093517, 5.31519461]
    assert sigmas[:8].tolist() == pytest.approx(expected, rel=1e-7)


class TestDdpm:
    """openai/improved-diffusion gaussian_diffusion, T = 1000, at i = 0, 1, 99, 499, 999; level i + 1 here."""

    @pytest.mark.parametrize(
        ("betas", "expected"),
        [
            ("linear", [0.9999, 0.999780092, 0.897018146, 0.0785872429, 4.03582977e-05]),
            ("cosine", [0.999958716, 0.999912576, 0.972092737, 0.49384359, 2.42876691e-09]),
        ],
    )
    def test_tables_are_those_of_improved_diffusion(self, betas, expected):
        levels = (torch.tensor([0, 1, 99, 499, 999]) + 1) / 1000
        found = torch.sigmoid(Ddpm(betas=betas).log_snr(levels))
        assert found.tolist() == pytest.approx(expected, rel=1e-8, abs=5e-10)

    def test_sigmoid_table_is_that_of_diffusion_forcing(self):
        found = torch.sigmoid(Ddpm(betas="sigmoid").table[[0, 499, 999]])
        assert found.tolist() == pytest.approx([0.999699721, 0.500000004, 3.00286987e-07], abs=5e-9)

    def test_levels_of_the_table_invert_and_the_rest_goes_to_the_nearest(self):
        schedule = Ddpm(num_levels=10)
        t = torch.arange(1, 11) / 10  # float32: k / 10 is not exact
        assert torch.allclose(schedule.level(schedule.log_snr(t)), t.double())
        between = schedule.table[3] - 0.1
        assert schedule.level(between).item() == pytest.approx(0.4)

    def test_density_is_near_that_of_the_continuous_limit(self):
        schedule = Ddpm()
        at = schedule.table[[100, 500, 900]]
        ratio = schedule.density(at) / VpLinear().density(at)
        assert torch.allclose(ratio, torch.ones(3).double(), atol=0.01)
        x = torch.linspace(*schedule.range, 20_001, dtype=torch.float64)
        assert abs(torch.trapezoid(schedule.density(x), x) - 1) < 1e-3


class TestBadInput:
    @pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
    def test_a_level_outside_the_interval_is_refused(self, t):
        with pytest.raises(ValueError, match=r"t must be in \[0, 1\], got values from"):
            FlowMatching().at(torch.full((1, 2), t))
        with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
            Cosine().log_snr(torch.tensor(t))

    def test_a_level_of_another_shape_is_refused(self):
        with pytest.raises(ValueError, match=r"t must have shape \(B, T\), got \(3,\)"):
            check_level(torch.zeros(3))

    @pytest.mark.parametrize("schedule", [VpLinear(), EdmSampling(), Ddpm()], ids=lambda s: type(s).__name__)
    def test_a_log_snr_that_the_schedule_never_reaches_is_refused(self, schedule):
        with pytest.raises(ValueError, match=r"log_snr must be in .*got values from -30 to -30"):
            schedule.level(torch.tensor([-30.0]))
        assert schedule.density(torch.tensor([-30.0])).item() == 0

    def test_an_exploding_frame_without_signal_is_refused(self):
        schedule = FlowMatching(family="variance_exploding")
        assert schedule.at(torch.full((1, 1), 0.5)).sigma.item() == pytest.approx(1.0)
        with pytest.raises(ValueError, match="sigma must be finite: family=variance_exploding, log_snr=-inf"):
            schedule.at(torch.ones(1, 1))

    def test_an_unknown_family_is_refused(self):
        with pytest.raises(ValueError, match=f"family must be one of {', '.join(FAMILIES)}, got 'straight'"):
            Cosine(family="straight")
        with pytest.raises(ValueError, match="family must be one of"):
            coefficients(torch.zeros(1), "straight")

    @pytest.mark.parametrize(
        ("kind", "fields", "message"),
        [
            (FlowMatching, {"shift": 0.0}, "shift must be above 0, got 0.0"),
            (LogitNormal, {"std": 0.0}, "std must be above 0"),
            (EdmTraining, {"std": -1.0}, "std must be above 0"),
            (EdmSampling, {"sigma_max": 0.001}, "sigma_max must be above 0.002, got 0.001"),
            (EdmSampling, {"rho": 0.0}, "rho must be above 0"),
            (VpLinear, {"beta_max": 0.05}, "beta_max must be above 0.1, got 0.05"),
            (Ddpm, {"num_levels": 1}, "num_levels must be at least 2, got 1"),
            (Ddpm, {"betas": "square"}, "betas must be one of linear, cosine, sigmoid, got 'square'"),
            (Ddpm, {"beta_max": 1.0}, r"beta_max must be in \(0, 1\), got 1.0"),
        ],
    )
    def test_a_parameter_that_makes_no_schedule_is_refused(self, kind, fields, message):
        with pytest.raises(ValueError, match=message):
            kind(**fields)
