"""The probability flow of several frames against closed forms, and the densities on which predictions rest."""

import pytest
import torch

from pipeline.data.processes import LinearGaussian
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.densities import log_density, score
from pipeline.laboratory.flows import along_the_flow, noise_of
from pipeline.laboratory.objectives import CLEANED
from pipeline.laboratory.quadrature import COARSE, independent
from pipeline.laboratory.regressions import regressed
from pipeline.models.linear_gaussian import Chain
from tests.processes import PROCESSES


@pytest.fixture
def z(rng):
    return torch.randn(64, 2, generator=rng, dtype=torch.float64)


def test_the_flow_of_a_gaussian_is_the_root_of_its_covariance(z):
    """From noise z to C^1/2 z, the symmetric root: the flow turns no eigenvector of C."""
    law = LinearGaussian((0.8,), 2).law
    values, vectors = torch.linalg.eigh(law.covariance)
    root = vectors * values.sqrt() @ vectors.mT
    found = along_the_flow(law, z, (True, True), start=1.0, stop=0.0, causal=False)
    assert torch.allclose(found, z @ root, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_up_the_flow_is_the_way_back(z, causal):
    law = PROCESSES["D"].law
    down = along_the_flow(law, z, (True, True), start=1.0, stop=0.0, causal=causal)
    up = along_the_flow(law, down, (True, True), start=0.0, stop=1.0, causal=causal)
    assert torch.allclose(up, z, atol=1e-4)


def test_beside_a_clean_frame_the_flow_keeps_the_order(z):
    """What it makes of noise is where the conditional distribution function says."""
    law = PROCESSES["D"].law
    clips = along_the_flow(law, z, (False, True), start=1.0, stop=0.0, causal=True)
    assert torch.equal(clips[:, 0], z[:, 0])
    back = noise_of(law.next_frame(clips[:, :1]), clips[:, 1:])
    assert torch.allclose(back, z[:, 1:], atol=1e-4)


def test_a_causal_flow_of_the_first_frame_does_not_look_ahead(z):
    law = PROCESSES["D"].law
    both = along_the_flow(law, z, (True, True), start=1.0, stop=0.0, causal=True)
    alone = along_the_flow(law.first(1), z[:, :1], (True,), start=1.0, stop=0.0, causal=True)
    assert torch.equal(both[:, :1], alone)


def test_noise_reaches_data_by_one_flow_in_both_directions_where_it_keeps_the_law():
    """The whole clip's flow does; a causal teacher's carries noise to another law than data."""
    chain = Chain(*torch.tensor([0.4, 0.9, 0.3, 0.1, 0.6], dtype=torch.float64))
    law = PROCESSES["D"].law

    def error(cleaned, *, upwards):
        return regressed(cleaned, upwards=upwards)(law, COARSE)(chain, chain).item()

    assert error(None, upwards=True) == pytest.approx(error(None, upwards=False), rel=1e-3)
    assert error(CLEANED, upwards=True) != pytest.approx(error(CLEANED, upwards=False), rel=1e-2)


def test_frames_that_are_never_noise_have_no_part_in_a_regression():
    """All but the last frame clean: the error of the last alone, whatever the first frame of the student is."""
    law, cleaned = (
        LinearGaussian((0.8,), 2).law,
        Independent(clean_probability=0.0, first_clean_probability=1 - 1e-9),
    )
    truth = torch.tensor([0.3, 0.1, 0.8, 0.0, 0.6], dtype=torch.float64)
    assert regressed(cleaned, upwards=False)(law, COARSE)(Chain(*truth), Chain(*truth)).item() < 1e-6


@pytest.mark.parametrize("process", ["C", "L"])
def test_densities_and_scores_of_nodes_are_those_of_the_mixture(process, rng):
    clean = PROCESSES[process].law.first(2)
    levels = independent(2, 3)
    law = clean.noised(levels.alpha, levels.sigma)
    x = torch.randn(50, len(levels.t), 2, generator=rng, dtype=torch.float64)
    assert torch.allclose(log_density(law, x), law.log_density(x), atol=1e-10)
    assert torch.allclose(score(law, x), law.score(x), atol=1e-9)
