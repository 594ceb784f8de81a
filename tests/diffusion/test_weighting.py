import itertools
import math

import pytest
import torch

from pipeline.diffusion.log_snr import coefficients
from pipeline.diffusion.schedule import Cosine, Ddpm, EdmTraining, FlowMatching, LogitNormal, Schedule, VpLinear
from pipeline.diffusion.weighting import (
    P2,
    WEIGHTINGS,
    Edm,
    EdmMonotonic,
    Elbo,
    Exponential,
    FusedSnr,
    MinSnr,
    PredictionL2,
    Sigmoid,
    error_ratio,
    is_monotone,
)
from tests.closed_forms import SKEWED, gaussian, kl

LOG_SNR = [-6.0, -2.0, 0.0, 2.0, 6.0]
COSINE, FLOW, VP = Cosine(), FlowMatching(), VpLinear()
# w at LOG_SNR, and whether it never rises: every published objective as one weighting.
TABLE = {
    "eps-L2, cosine": (
        PredictionL2("eps", COSINE),
        [0.0316170613, 0.206282082, 0.318309886, 0.206282082, 0.0316170613],
        False,
    ),
    "eps-L2, flow matching": (
        PredictionL2("eps", FLOW),
        [0.0451766597, 0.196611933, 0.25, 0.196611933, 0.0451766597],
        False,
    ),
    "eps-L2, VP linear": (
        PredictionL2("eps", VP),
        [0.129074065, 0.191453045, 0.190356204, 0.105966161, 0.0150109607],
        False,
    ),
    "eps-L2, EDM": (
        PredictionL2("eps", EdmTraining()),
        [0.000727235579, 0.0619259696, 0.20164227, 0.32786643, 0.10793133],
        False,
    ),
    "x0-L2, cosine": (
        PredictionL2("x0", COSINE),
        [12.7552329, 1.52422988, 0.318309886, 0.027917244, 7.83708594e-05],
        True,
    ),
    "x0-L2, flow matching": (
        PredictionL2("x0", FLOW),
        [18.2255653, 1.4527766, 0.25, 0.0266085317, 0.000111981744],
        True,
    ),
    "x0-L2, VP linear": (
        PredictionL2("x0", VP),
        [52.0721945, 1.41465729, 0.190356204, 0.0143409604, 3.72084515e-05],
        True,
    ),
    "v-L2, cosine": (
        PredictionL2("v", COSINE),
        [12.7868499, 1.73051196, 0.636619772, 0.234199326, 0.0316954321],
        True,
    ),
    "v-L2, VP linear": (
        PredictionL2("v", VP),
        [52.2012685, 1.60611034, 0.380712407, 0.120307122, 0.0150481691],
        True,
    ),
    "EDM": (Edm(), [1.17427832, 1.89222382, 1.00821135, 0.505354015, 0.10900147], False),
    "flow velocity, straight": (
        PredictionL2("flow_velocity", FLOW),
        [20.0855369, 2.71828183, 1.0, 0.367879441, 0.0497870684],
        True,
    ),
    "flow velocity, logit-normal": (
        PredictionL2("flow_velocity", LogitNormal()),
        [1.97039922, 3.34539523, 1.59576912, 0.452750011, 0.00488413135],
        False,
    ),
    "flow velocity, shift 5": (
        PredictionL2("flow_velocity", FlowMatching(shift=5.0)),
        [70.9538519, 3.15433511, 0.555555556, 0.119444363, 0.0107582805],
        True,
    ),
    "min-SNR-5, cosine": (
        MinSnr(on=COSINE),
        [0.0316170613, 0.206282082, 0.318309886, 0.13958622, 0.000391854297],
        False,
    ),
    "min-SNR-5, VP linear": (
        MinSnr(on=VP),
        [0.129074065, 0.191453045, 0.190356204, 0.0717048022, 0.000186042257],
        False,
    ),
    "P2, cosine": (P2(on=COSINE), [0.0315388842, 0.181692655, 0.159154943, 0.0245894269, 7.81770778e-05], False),
    "EDM, monotonic": (EdmMonotonic(), [2.16821726, 1.89222382, 1.00821135, 0.505354015, 0.10900147], True),
    "sigmoid": (Sigmoid(2.0), [0.99966465, 0.98201379, 0.880797078, 0.5, 0.01798621], True),
    "exponential": (Exponential(), [math.exp(-x / 2) for x in LOG_SNR], True),
    "elbo": (Elbo(), [1.0] * 5, True),
}


def weight(weighting, log_snr, native: Schedule = COSINE):
    return weighting.weight(torch.as_tensor(log_snr, dtype=torch.float64)[:, None], native)[:, 0]


@pytest.mark.parametrize("name", TABLE)
def test_weights_and_monotone_flags_are_those_of_the_table(name):
    weighting, expected, monotone = TABLE[name]
    assert weight(weighting, LOG_SNR).tolist() == pytest.approx(expected, rel=1e-7)
    assert is_monotone(weighting) is monotone


@pytest.mark.parametrize(
    ("prediction", "schedule"),
    list(itertools.product(["eps", "x0", "v", "flow_velocity"], [COSINE, FLOW, VP, EdmTraining()])),
    ids=str,
)
def test_a_plain_mean_under_a_schedule_is_the_integral_of_its_weight(prediction, schedule):
    """E_t[c |eps - eps_hat|^2] = 1/2 integral w |eps - eps_hat|^2, for an error that depends on the log-SNR."""

    def error(log_snr):
        return torch.sigmoid(1 - log_snr) ** 2 * torch.sigmoid(log_snr + 4) ** 4

    t = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    at = schedule.log_snr(t)
    native = (error_ratio(prediction, at) * error(at)).mean()
    grid = torch.linspace(max(schedule.range[0], -60.0), 60.0, 400_001, dtype=torch.float64)
    whole = torch.trapezoid(weight(PredictionL2(prediction, schedule), grid) * error(grid), grid) / 2
    assert native.item() == pytest.approx(whole.item(), rel=2e-5)


def test_three_names_are_one_objective():
    """v-L2 on the cosine schedule and flow-matching velocity are exp(-log_snr / 2), up to a constant."""
    grid = torch.linspace(-9, 9, 19, dtype=torch.float64)
    reference = weight(Exponential(), grid)
    for weighting, factor in (
        (PredictionL2("v", COSINE), 2 / math.pi),
        (PredictionL2("flow_velocity", FLOW), 1.0),
    ):
        assert torch.allclose(
            weight(weighting, grid) / reference, torch.full((19,), factor, dtype=torch.float64), rtol=1e-10
        )


def test_a_plain_mean_without_a_schedule_is_that_of_the_run():
    native = FlowMatching(shift=3.0)
    grid = torch.tensor(LOG_SNR)
    for there, here in (
        (PredictionL2("v", native), PredictionL2("v")),
        (MinSnr(on=native), MinSnr()),
        (P2(on=native), P2()),
    ):
        assert torch.equal(weight(here, grid, native), weight(there, grid))


def test_the_peak_of_edm_is_where_its_weight_is_largest():
    assert EdmMonotonic().peak == pytest.approx(-3.3078, abs=5e-5)
    assert weight(EdmMonotonic(), [-20.0]).item() == pytest.approx(2.16821726, rel=1e-7)


def test_a_shifted_sigmoid_is_the_sigmoid_of_frames_of_another_size():
    shifted = weight(Sigmoid(2.0, log_shift=math.log(0.5)), LOG_SNR)
    assert torch.allclose(shifted, weight(Sigmoid(2.0), torch.tensor(LOG_SNR) - 2 * math.log(0.5)))


class TestFusedSnr:
    """buoyancy99/diffusion-forcing: cosine table of 1,000, clip 5, decay .98, three frames of two clips."""

    LEVELS = (torch.tensor([[10, 500, 999], [900, 500, 0]]) + 1) / 1000

    @pytest.mark.parametrize(
        ("prediction", "expected"),
        [
            ("eps", [[0.00360808291, 1, 1], [1, 1, 0.000208187798]]),
            ("x0", [[5.0, 4.91939219, 4.82100435], [0.0241873192, 0.988716534, 5.0]]),
            ("v", [[0.00360548113, 0.831063736, 0.82820834], [0.0236161088, 0.497163129, 0.00020817913]]),
        ],
    )
    def test_factors_are_those_of_the_public_code(self, prediction, expected):
        found = FusedSnr(prediction=prediction).factor(Ddpm(betas="cosine").log_snr(self.LEVELS))
        assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=2e-8, atol=2e-9)

    def test_the_weight_counts_the_factor_in_the_error_of_its_prediction(self):
        log_snr = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        alpha, _ = coefficients(log_snr, "variance_preserving")
        expected = 2 * FLOW.density(log_snr) * FusedSnr().factor(log_snr) / alpha**2
        assert torch.allclose(FusedSnr().weight(log_snr, FLOW), expected)

    def test_a_clip_of_one_frame_is_min_snr(self):
        for prediction in ("eps", "x0", "v"):
            fused = weight(FusedSnr(prediction=prediction), LOG_SNR)
            assert torch.allclose(fused, weight(MinSnr(), LOG_SNR))


def test_a_monotone_weighting_is_a_mean_of_divergences_between_noised_laws():
    """1/2 int w sigma^2 E|s_q - s_p|^2 dl = E_{p_w} KL(q_t || p_t); p_w has an atom where noise begins."""
    q, p, sigmoid = SKEWED, gaussian(0.1, 0.7), Sigmoid(2.0)
    grid = torch.linspace(-14, 16, 601, dtype=torch.float64)
    fisher, divergence = torch.zeros_like(grid), torch.zeros_like(grid)
    for index, log_snr in enumerate(grid):
        alpha, sigma = coefficients(log_snr, "variance_preserving")
        q_t, p_t = q.noised(alpha, sigma), p.noised(alpha, sigma)
        fisher[index] = sigma**2 * q_t.mean_of(lambda x, q_t=q_t, p_t=p_t: (q_t.score(x) - p_t.score(x)) ** 2)
        divergence[index] = kl(q_t, p_t)
    w = weight(sigmoid, grid)
    left = torch.trapezoid(w * fisher, grid) / 2
    density = w * (1 - w)  # -dw / dl
    right = torch.trapezoid(density * divergence, grid) + w[-1] * divergence[-1]
    assert left.item() == pytest.approx(right.item(), abs=1e-4)
    assert left.item() == pytest.approx(0.39704, abs=1e-4)
    assert torch.trapezoid(fisher, grid).item() / 2 == pytest.approx(kl(q, p).item(), abs=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: PredictionL2("noise"),
            "prediction must be one of x0, eps, v, score, edm, flow_velocity, got 'noise'",
        ),
        (lambda: Edm(sigma_data=0.0), "sigma_data must be above 0, got 0.0"),
        (lambda: MinSnr(limit=0.0), "limit must be above 0, got 0.0"),
        (lambda: P2(gamma=-1.0), "gamma must be at least 0, got -1.0"),
        (lambda: P2(k=0.0), "k must be above 0, got 0.0"),
        (lambda: FusedSnr(decay=1.5), r"decay must be in \[0, 1\], got 1.5"),
        (lambda: FusedSnr(prediction="edm"), "prediction must be one of eps, x0, v, got 'edm'"),
    ],
)
def test_a_parameter_that_makes_no_weighting_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_every_weighting_is_reachable_by_name_and_finite_inside():
    for kind in WEIGHTINGS.values():
        w = weight(kind(), torch.linspace(-10, 10, 41))
        assert (w > 0).all()
        assert w.isfinite().all()
