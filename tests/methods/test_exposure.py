"""Exposure bias: what a rollout becomes whose student is right after true frames and errs a little on its own.

Data: x_f = .9 x_f-1 + noise, stationary of variance 1. The student has learnt the data after true frames; when it
samples, every frame gets a further noise of variance .05 that no true context ever showed.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import root

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import FlowMatching
from pipeline.diffusion.trajectory import Euler

LINK, HIDDEN = 0.9, 0.05
INNOVATION = 1 - LINK**2


class Student:
    """x_f = link (frame before) + noise of this variance, in one call; the first frame is that of data."""

    def __init__(self, link=LINK, variance=INNOVATION + HIDDEN):
        self.link, self.spread = link, variance**0.5

    def denoise_chunk(self, x_t, t, cache):
        return x_t if cache is None else self.link * cache + self.spread * x_t

    def extend(self, cache, x, t, *, window):
        return x / (1 - t[..., None, None, None])  # undo the flow's scaling: the frame and noise beside it


def points(num_frames):
    """Noise whose quadratic means are exactly those of N(0, 1)."""
    plus = torch.eye(num_frames, dtype=torch.float64) * num_frames**0.5
    return torch.cat([plus, -plus])[..., None, None, None]


def rolled(student, noise, rng, **sampler):
    sampler = Sampler(window=1, **{"num_steps": 1, **sampler})
    made = generate(student, noise, schedule=FlowMatching(), sampler=sampler, rng=rng)
    return made.x0_hat.flatten(1)


def test_errors_add_up_along_a_rollout_to_hidden_variance_over_one_less_the_squared_link(rng):
    x = rolled(Student(), points(41), rng)
    variance = x.square().mean(0)
    assert variance[[1, 4, 12, 24]].tolist() == pytest.approx([1.05, 1.1499, 1.2422, 1.2615], abs=1e-4)
    assert variance[40].item() == pytest.approx(1 + HIDDEN / (1 - LINK**2), abs=1e-3)
    lag_one = (x[:, 39] * x[:, 40]).mean() / (variance[39] * variance[40]).sqrt()
    assert lag_one.item() == pytest.approx(LINK, abs=1e-3)


@pytest.mark.parametrize(
    ("noise", "limit", "link"), [(0.05, 1.1885, 0.857), (0.1, 1.1512, 0.818), (0.2, 1.1143, 0.75)]
)
def test_context_noise_damps_the_error_at_the_price_of_memory(noise, limit, link, rng):
    """A student that knows its context to be noised by this variance leans on it less."""
    level = noise**0.5 / (1 + noise**0.5)  # sigma / alpha = sqrt(noise)
    learnt = LINK / (1 + noise)
    student = Student(learnt, 1 - learnt**2 * (1 + noise) + HIDDEN)
    x = rolled(student, torch.randn(100_000, 20, 1, 1, 1, generator=rng), rng, context_noise=level)
    late = x[:, 14:]
    assert late.var().item() == pytest.approx(limit, abs=0.01)
    assert learnt == pytest.approx(link, abs=1e-3)
    found = (x[:, 18] * x[:, 19]).mean() / (x[:, 18].var() * x[:, 19].var()).sqrt()
    assert found.item() == pytest.approx(link, abs=0.01)


class Erring:
    """Channel 0 are frames; channel 1 of the noise is what a student's sampling adds without its knowledge."""

    def __init__(self, first, link, spread):
        self.first, self.link, self.spread = first, link, spread

    def denoise_chunk(self, x_t, t, cache):
        z, hidden = x_t.split(1, dim=2)
        frame = self.first * z if cache is None else self.link * cache + self.spread * z + HIDDEN**0.5 * hidden
        return torch.cat([frame, torch.zeros_like(frame)], dim=2)

    def extend(self, cache, x, t, *, window):
        return x[:, :, :1]


@pytest.mark.parametrize("detach_context", [True, False])
def test_self_forcing_leaves_room_for_the_hidden_noise(detach_context, rng):
    """The reverse KL of the rollout's law ends at link .9 and variance .19 - .05: no error is left to add up."""
    noise = points(8).reshape(16, 4, 2, 1, 1)
    lag = (torch.arange(4)[:, None] - torch.arange(4)).abs().double()
    precision = torch.linalg.inv(LINK**lag)

    def pull(values):
        parameters = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]
        made = generate(
            Erring(*parameters),
            noise,
            schedule=FlowMatching(),
            sampler=Sampler(num_steps=1, window=1),
            rng=rng,
            detach_context=detach_context,
        )
        x = made.x0_hat[:, :, 0].flatten(1)
        frames = x.detach()
        fake = torch.linalg.inv(frames.T @ frames / len(x))
        slopes = torch.autograd.grad((frames @ (precision - fake) * x).sum() / len(x), parameters)
        return np.array([slope.item() for slope in slopes])

    found = root(pull, np.array([0.9, 0.7, 0.5]), tol=1e-12)
    assert found.success
    first, link, spread = found.x
    assert (first, link, spread**2) == pytest.approx((1.0, LINK, 0.14), abs=1e-4)


class Exact(Student):
    """The posterior mean of the frame given the noisy one and the frame before, exactly."""

    def denoise_chunk(self, x_t, t, cache):
        mean = 0.0 if cache is None else LINK * cache
        variance = 1.0 if cache is None else INNOVATION
        alpha, sigma = FlowMatching().at(t)
        return mean + variance * alpha / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)


@pytest.mark.parametrize(("num_steps", "share"), [(1, 0.0), (2, 0.3663), (4, 0.6629), (8, 0.8199), (16, 0.9062)])
def test_few_euler_steps_of_the_exact_denoiser_lose_spread_and_the_rollout_with_it(num_steps, share, rng):
    """Each frame keeps this share of its conditional spread: in the long run, of its own."""
    x = rolled(Exact(), points(41), rng, num_steps=num_steps, step=Euler())
    assert x[:, 40].square().mean().sqrt().item() == pytest.approx(share, abs=1e-2)
    own = x[:, 40] - LINK * x[:, 39]
    assert own.square().mean().sqrt().item() == pytest.approx(share * INNOVATION**0.5, abs=1e-4)
