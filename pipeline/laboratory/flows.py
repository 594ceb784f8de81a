"""The probability flow of a process: exact on the line, and finely solved for several frames."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily, Normal

from pipeline.data.processes_mixture import GaussianMixture

NUM_STEPS = 48  # of the classical Runge-Kutta method, of fourth order


def noise_of(law: MixtureSameFamily, x: Tensor) -> Tensor:
    """Phi^-1(F(x)), where the flow takes points x (*N, P) of laws (*N) on the line, since it keeps the order."""
    shares, normals = law.mixture_distribution.probs, law.component_distribution
    assert isinstance(normals, Normal)
    standardised = (x[..., None] - normals.loc[..., None, :]) / normals.scale[..., None, :]
    below, above = ((torch.special.ndtr(sign * standardised) * shares[..., None, :]).sum(-1) for sign in (1, -1))
    # the smaller tail, whose digits are not lost to 1
    return torch.where(below < 0.5, torch.special.ndtri(below), -torch.special.ndtri(above))


def along_the_flow(
    data: GaussianMixture, x: Tensor, moves: tuple[bool, ...], *, start: float, stop: float, causal: bool
) -> Tensor:
    """Points (*N, F) at the level `start` of flow matching's schedule, taken to `stop` together.

    Frames that do not move are clean. causal: a frame follows the denoiser of the frames up to it, at their levels;
    then no frame's path is that of the flow of the whole law. Else of all frames.
    """
    times = torch.linspace(start, stop, NUM_STEPS + 1, dtype=torch.float64).tolist()
    for at, to in pairwise(times):
        step, middle = to - at, (at + to) / 2
        first = _velocity(data, x, moves, at, causal=causal)
        second = _velocity(data, x + step / 2 * first, moves, middle, causal=causal)
        third = _velocity(data, x + step / 2 * second, moves, middle, causal=causal)
        fourth = _velocity(data, x + step * third, moves, to, causal=causal)
        x = x + step / 6 * (first + 2 * second + 2 * third + fourth)
    return x


def _velocity(data: GaussianMixture, x: Tensor, moves: tuple[bool, ...], t: float, *, causal: bool) -> Tensor:
    """dx_t / dt = E[eps - x_0 | x_t] = (x_t - x0_hat) / t, at t = 0 minus x_0."""
    moving = torch.tensor(moves, dtype=torch.float64)
    if t == 0:
        return -x * moving
    alpha, sigma = 1 - t * moving, t * moving
    if not causal:
        return (x - data.denoised(x, alpha, sigma)) / t * moving
    frames = [
        data.first(n).denoised(x[..., :n], alpha[:n], sigma[:n])[..., -1] if moves[n - 1] else x[..., n - 1]
        for n in range(1, data.num_frames + 1)
    ]
    return (x - torch.stack(frames, -1)) / t
