"""Densities of neural students against laws that are known: exact denoisers, linear maps, a map that folds."""

import math
from dataclasses import replace

import pytest
import torch

from pipeline.diffusion.schedule import Cosine
from pipeline.laboratory.denoisers import ClosedForm, ExactDenoiser, LawDenoiser
from pipeline.laboratory.laws import chain_law
from pipeline.laboratory.measure import ONE_STEP
from pipeline.laboratory.neural_densities import flow_log_density, flow_sampler, one_step_log_density, sample
from pipeline.laboratory.steps import conditional_log_densities
from pipeline.laboratory.students import GeneratingStudent
from pipeline.models.linear_gaussian import LinearGaussianSpec, LinearGaussianStudent
from tests.processes import PROCESSES

LAW = replace(PROCESSES["D"], num_frames=4).law
CHAIN = {"m1": 0.5, "s1": 1.1, "c": 0.4, "m2": 0.1, "s2": 0.6}


class CausalExact(LawDenoiser):
    """Every frame denoised after the clean ones before it, as a causal network would."""

    def __init__(self, law):
        super().__init__("full")  # whose cache is the frames
        self.known = law

    def law(self):
        return self.known

    def denoise_chunk(self, x_t, t, cache, end=None):
        clip = x_t if cache is None else cache.followed_by(x_t, t)[0]
        frame, later = clip.shape[1] - 1, self.known.num_frames - clip.shape[1]
        padded = torch.nn.functional.pad(clip, (0, 0, 0, 0, 0, 0, 0, later))
        return self.beside(padded, t.expand(-1, self.known.num_frames), padded)[:, frame : frame + 1]


def test_the_flow_of_the_exact_denoiser_ends_at_the_law_of_data():
    x = LAW.sample(300, torch.Generator().manual_seed(0))
    whole = flow_log_density(ExactDenoiser(lambda: LAW), x)
    assert whole.shape == (300, 1)
    assert (whole[:, 0] - LAW.log_density(x)).abs().max() < 0.05
    assert whole.mean().item() == pytest.approx(LAW.log_density(x).mean().item(), abs=1e-3)


def test_a_causal_flow_has_the_conditionals_of_data():
    x = LAW.sample(300, torch.Generator().manual_seed(1))
    student = CausalExact(LAW)
    student.spec = replace(student.spec, backbone=replace(student.spec.backbone, attention="causal"))
    by_frame = flow_log_density(student, x)
    expected = conditional_log_densities(LAW, x)
    assert (by_frame - expected).abs().max() < 0.05
    assert by_frame.mean(0).tolist() == pytest.approx(expected.mean(0).tolist(), abs=1e-3)


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_what_the_flow_samples_has_the_law_of_data(attention):
    """E ln q, the shares of modes and moments are those of data, to four standard errors."""
    student = {"causal": CausalExact(LAW), "full": ExactDenoiser(lambda: LAW)}[attention]
    made = sample(student, flow_sampler(4, attention), 2000, 4, torch.Generator().manual_seed(2)).double()
    data = LAW.sample(2000, torch.Generator().manual_seed(3))
    for number in (
        LAW.log_density,
        lambda x: LAW.posterior(x)[:, 1],
        lambda x: x.sum(1),
        lambda x: x[:, 2] * x[:, 3],
    ):
        a, b = number(made), number(data)
        assert abs(a.mean() - b.mean()) < 4 * math.sqrt(a.var() / 2000 + b.var() / 2000)


def test_a_linear_map_of_the_line_is_a_gaussian():
    own = LinearGaussianStudent(LinearGaussianSpec("frame_by_frame", 3), **CHAIN)
    student, law = GeneratingStudent(own, "causal"), chain_law(own.chain, 3)
    x = LAW.first(3).sample(200, torch.Generator().manual_seed(4))
    assert one_step_log_density(student, x).detach().numpy() == pytest.approx(
        conditional_log_densities(law, x).detach().numpy(), abs=1e-9
    )
    made = sample(student, ONE_STEP, 20000, 3, torch.Generator().manual_seed(5)).double()
    assert made.mean(0).tolist() == pytest.approx(law.mean.tolist(), abs=0.03)
    assert torch.cov(made.T) == pytest.approx(law.covariance.detach().numpy(), abs=0.05)


class MapStudent(ClosedForm):
    """A frame is g(z), whatever came before it."""

    def __init__(self, g):
        super().__init__("causal")
        self.g = g

    def beside(self, x_t, t, context, end=None):
        return self.g(x_t)


def of_a_map(g, x):
    """ln p(x) where x = g(z)."""
    return one_step_log_density(MapStudent(g), x[:, None])[:, 0]


def test_a_map_that_folds_counts_every_branch():
    """|z| has twice the density of a normal above 0, and none below."""
    x = torch.linspace(0.05, 3, 60, dtype=torch.float64)
    expected = math.log(2) - (x.square() + math.log(2 * math.pi)) / 2
    assert of_a_map(torch.abs, x).numpy() == pytest.approx(expected.numpy(), abs=1e-9)
    assert of_a_map(torch.abs, -x).exp().max() == 0


@pytest.mark.parametrize("g", [torch.sinh, lambda z: z + 2 * torch.tanh(3 * z), lambda z: z**3 - 2 * z, torch.sin])
def test_the_density_of_a_map_integrates_to_one(g):
    """sin folds again and again: its noise ends on the arcsine of a normal, all between -1 and 1."""
    x = torch.linspace(-40, 40, 160001, dtype=torch.float64)
    parts = [of_a_map(lambda z: g(z), part).exp() for part in x.split(2**15)]
    assert torch.trapezoid(torch.cat(parts), x).item() == pytest.approx(1, abs=0.01)


def test_the_density_of_a_bent_map_is_that_of_the_change_of_variables():
    """On average over what it makes; between two nodes the density of a line is now above, now below."""
    z = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = -(z.square() + math.log(2 * math.pi)) / 2 - z.cosh().log()
    error = of_a_map(torch.sinh, z.sinh()) - expected
    assert abs(error.mean().item()) < 2e-3
    assert error.abs().mean() < 0.03


def test_only_the_straight_path_has_its_density_integrated():
    student = ExactDenoiser(lambda: LAW)
    student.spec = replace(student.spec, schedule=Cosine())
    with pytest.raises(ValueError, match="schedule must be FlowMatching"):
        flow_log_density(student, LAW.sample(2, torch.Generator().manual_seed(0)))
