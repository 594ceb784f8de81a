"""SKEWED data on the line and the flow of its exact denoiser; and a rollout of data with a clean first frame."""

import torch
from torch import nn

from pipeline.diffusion.schedule import FlowMatching
from pipeline.interfaces import Rollout
from pipeline.models.denoiser import Denoiser
from tests.closed_forms import SKEWED

SCHEDULE = FlowMatching()
NEAREST = (0.5, 1.0292)  # mean and std of the Gaussian nearest to SKEWED in the Wasserstein-2 distance


class Exact(Denoiser):
    """E[x_0 | x_t] of SKEWED, also at pure noise."""

    def __init__(self):
        nn.Module.__init__(self)

    def forward(self, x_t, t, end=None):
        alpha, sigma = (c.reshape(-1, 1) for c in SCHEDULE.at(t))
        z, variance = x_t.reshape(-1, 1), SKEWED.sds**2
        total = alpha**2 * variance + sigma**2
        share = torch.softmax(
            SKEWED.shares.log() - total.log() / 2 - (z - alpha * SKEWED.means) ** 2 / (2 * total), 1
        )
        means = SKEWED.means + alpha * variance / total * (z - alpha * SKEWED.means)
        return (share * means).sum(1).reshape(x_t.shape)


def clips_of(values):
    return values[:, None, None, None, None]


def linear_fit(loss_of):
    """Where the gradient of a quadratic function of mean and std vanishes."""

    def gradient(*at):
        student = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(loss_of(*student), student)[0]

    offset = gradient(0.0, 0.0)
    system = torch.stack([gradient(1.0, 0.0) - offset, gradient(0.0, 1.0) - offset], 1)
    return torch.linalg.solve(system, -offset).tolist()


def made_by(student, rng):
    """A clean first frame as context, and the others noised, with data as the target."""
    clips = torch.randn(4, 3, 1, 4, 4, generator=rng)
    t = torch.tensor([[0.0, 0.4, 0.8]]).repeat(4, 1)
    alpha, sigma = SCHEDULE.at(t)
    x_t = alpha * clips + sigma * torch.randn(clips.shape, generator=rng)
    return Rollout(student(x_t, t), x_t, t, counts=(t > 0).float(), target=clips, denoise=student), clips
