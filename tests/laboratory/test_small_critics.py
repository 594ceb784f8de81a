"""Critics that learn: what they may see, and where they begin."""

import torch

from pipeline.data.processes_mixture import gaussian
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.small_critics import NextDiscriminator, NextScore, SmallScore
from tests.processes import PROCESSES

LAW = PROCESSES["D"].law


def asked(num_clips=5):
    rng = torch.Generator().manual_seed(0)
    x_t, context = torch.randn(2, num_clips, 2, 1, 1, 1, generator=rng, dtype=torch.float64)
    return x_t, torch.rand(num_clips, 2, generator=rng, dtype=torch.float64) * 0.9 + 0.05, context


def test_a_frame_is_judged_by_itself_and_the_clean_frames_before_it():
    x_t, t, context = asked()
    for critic in (NextScore(LAW, 8), NextDiscriminator(LAW, 8)):
        before = critic.beside(x_t, t, context)
        later = critic.beside(x_t, t, context + torch.tensor([0.0, 1.0])[:, None, None, None])  # nothing follows it
        assert torch.equal(before, later)
        moved = critic.beside(x_t, t, context + torch.tensor([1.0, 0.0])[:, None, None, None])
        assert torch.equal(before[:, 0], moved[:, 0])
        assert (before[:, 1] - moved[:, 1]).abs().min() > 0
        noisier = critic.beside(x_t + torch.tensor([0.0, 1.0])[:, None, None, None], t, context)
        assert torch.equal(before[:, 0], noisier[:, 0])


def test_a_score_that_has_learnt_nothing_is_that_of_frames_with_the_spread_of_data():
    """EDM's preconditioning: with a network of 0 it is exact for independent frames of one variance."""
    score = SmallScore(LAW, 8)
    for parameter in score.network[-1].parameters():
        torch.nn.init.zeros_(parameter)
    std = LAW.covariance.diagonal().mean().sqrt()
    plain = gaussian(LAW.mean, std * torch.eye(2, dtype=torch.float64))
    x_t, t, _ = asked()
    torch.testing.assert_close(score(x_t, t), ExactDenoiser(lambda: plain)(x_t, t), rtol=1e-9, atol=1e-9)
