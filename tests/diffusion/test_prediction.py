import itertools

import pytest
import torch

from pipeline.diffusion.log_snr import FAMILIES, Coefficients, coefficients
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import FlowMatching, add_noise

# What each prediction is at log-SNR 1.3, x0 = .7, eps = -.4, with data of standard deviation .5.
OUTPUTS = {
    "variance_preserving": {"score": 0.864342216, "v": -0.678535101, "edm": 1.28774513, "flow_velocity": -1.1},
    "variance_exploding": {"score": 0.766216332, "v": -0.765432044, "edm": 1.28774513, "flow_velocity": -1.1},
    "flow": {"score": 1.16621633, "v": -0.502896861, "edm": 1.28774513, "flow_velocity": -1.1},
}


def frames(family, *, log_snr=1.3, x0=0.7, eps=-0.4):
    alpha, sigma = coefficients(torch.full((1, 1), log_snr, dtype=torch.float64), family)
    at = Coefficients(alpha[..., None, None, None], sigma[..., None, None, None])
    x = torch.full((1, 1, 1, 1, 1), x0, dtype=torch.float64)
    return x, at.alpha * x + at.sigma * eps, at


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_those_of_the_definitions(family):
    x, x_t, at = frames(family)
    for name, expected in {**OUTPUTS[family], "x0": 0.7, "eps": -0.4}.items():
        assert PREDICTIONS[name].from_x0(x, x_t, at, 0.5).item() == pytest.approx(expected, abs=5e-9), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pair", list(itertools.permutations(PREDICTIONS, 2)), ids="-".join)
def test_every_pair_converts_there_and_back(family, pair):
    there, back = (PREDICTIONS[name] for name in pair)
    alpha, sigma = coefficients(torch.linspace(-9, 9, 7, dtype=torch.float64)[None], family)
    at = Coefficients(alpha[..., None, None, None], sigma[..., None, None, None])
    rng = torch.Generator().manual_seed(0)
    output, x_t = torch.randn(2, 1, 7, 1, 2, 2, generator=rng, dtype=torch.float64)
    other = back.from_x0(there.to_x0(output, x_t, at, 0.7), x_t, at, 0.7)
    again = there.from_x0(back.to_x0(other, x_t, at, 0.7), x_t, at, 0.7)
    assert torch.allclose(again, output, rtol=1e-9, atol=1e-9)


def test_edm_has_the_preconditioning_of_its_paper():
    """NVlabs/edm EDMPrecond at sigma = .002, .5, 2, 80 with sigma_data = .5."""
    sigma = torch.tensor([0.002, 0.5, 2.0, 80.0], dtype=torch.float64)
    c_skip, c_out = PREDICTIONS["edm"].terms(torch.ones_like(sigma), sigma, 0.5)
    assert c_skip.tolist() == pytest.approx([0.999984, 0.5, 0.0588235294, 3.90609742e-05], rel=1e-8)
    assert c_out.tolist() == pytest.approx([0.001999984, 0.353553391, 0.48507125, 0.499990235], rel=1e-8)


@pytest.mark.parametrize("name", ["x0", "v", "edm", "flow_velocity"])
def test_what_needs_no_signal_is_finite_at_both_ends(name):
    t = torch.tensor([[0.0, 1.0]])
    x, eps, output = torch.randn(3, 1, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    at = FlowMatching().at(t)
    x_t = add_noise(FlowMatching(), x, eps, t)
    assert PREDICTIONS[name].to_x0(output, x_t, at).isfinite().all()
    if name != "x0":  # a clean frame is itself, whatever the network says
        assert torch.equal(PREDICTIONS[name].to_x0(output, x_t, at)[:, 0], x[:, 0])


@pytest.mark.parametrize("name", ["eps", "score"])
def test_a_prediction_of_noise_refuses_frames_without_signal(name):
    at = FlowMatching().at(torch.ones(1, 1))
    x = torch.ones(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"alpha must not be 0 for x0 to follow from the output"):
        PREDICTIONS[name].to_x0(x, x, at)
    with pytest.raises(ValueError, match=r"alpha must not be 0 for the output to follow from x0"):
        PREDICTIONS[name].from_x0(x, x, at)


@pytest.mark.parametrize("name", ["eps", "score", "v", "edm", "flow_velocity"])
def test_no_output_follows_from_a_clean_frame(name):
    at = FlowMatching().at(torch.zeros(1, 1))
    x = torch.ones(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"sigma must not be 0 for the output to follow from x0"):
        PREDICTIONS[name].from_x0(x, x, at)
