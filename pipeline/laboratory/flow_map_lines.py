"""The lines at which consistency losses leave a student: least squares, level by level from the lowest on.

A line is to meet that of the level below at the lower point of a pair: in training one frame of data has one noise
at both levels; in distillation the exact score takes the step. Of both points a line knows second moments alone.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.flow_map import SOLVERS, Discretisation
from pipeline.diffusion.schedule import FlowMatching, Schedule
from pipeline.interfaces import NoiseLevel, Video
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.laws import chain_law
from pipeline.laboratory.optima import NUMERICAL, NoOptimumError
from pipeline.laboratory.quadrature import Precision, normal_nodes
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.models.linear_gaussian import Chain

SCHEDULE: Schedule = FlowMatching()
CONVERGED = 1e-9  # of parameters, from one iteration to the next
MAX_ITERATIONS = 200
ConsistencyLoss = ConsistencyTraining | ConsistencyDistillation


class Pairs(NamedTuple):
    """Second moments of both points of a pair at every step of a grid, the clean frames before them in front."""

    upper_mean: Float[Tensor, "steps F"]
    lower_mean: Float[Tensor, "steps F"]
    covariance: Float[Tensor, "steps F F"]  # of the lower point with the upper one
    variance: Float[Tensor, "steps F F"]  # of the upper point


def ends(
    met: GaussianMixture, data: GaussianMixture, loss: ConsistencyLoss, precision: Precision
) -> dict[str, float]:
    """The chain m1, s1, and of two frames c, m2, s2, of what lines make of noise, a later frame after a clean one.

    met: the law of the frames that were noised for them; of data, of which the teacher knows, or of a student.
    Noised contexts have lines of their own, so that diffusion forcing ends where teacher forcing does.
    """
    chain: dict[str, float] = {}
    for frame in range(1, met.num_frames + 1):
        match loss:
            case ConsistencyTraining():
                pairs = _of_training(met.first(frame), loss.grid)
            case ConsistencyDistillation():
                pairs = _of_distillation(met.first(frame), data.first(frame), loss, precision)
        chain |= _of_noise(met.first(frame), pairs, loss.grid)
    return chain


def ends_on_own_frames(
    data: GaussianMixture, loss: ConsistencyDistillation, precision: Precision
) -> dict[str, float]:
    """Of a student that meets its own frames: the fixed point theta = T(theta), the ends on the frames of theta.

    On Gaussian data the teacher's steps are lines, which fit whatever frames there are: T is constant, and self
    forcing ends where teacher forcing does. On mixtures T moves as far as those steps bend over the student's
    frames. That there is a fixed point, and one alone, is not shown: T is iterated from the ends on data on, and
    where that ends, training that lags behind T does, too.

    Raises:
        NoOptimumError: the iteration does not end, or a law on its way has no density.
    """
    chain = ends(data, data, loss, precision)
    for _ in range(MAX_ITERATIONS):
        own = chain_law(Chain(*torch.tensor(list(chain.values()), dtype=torch.float64)), data.num_frames)
        try:
            last, chain = chain, ends(own, data, loss, precision)
        except NUMERICAL as error:
            raise NoOptimumError(f"a student's own frames lead to {chain}, which have no density") from error
        if max(abs(chain[name] - value) for name, value in last.items()) < CONVERGED:
            return chain
    raise NoOptimumError(f"a student's own frames lead on and on: after {MAX_ITERATIONS} iterations {chain}")


def _of_noise(met: GaussianMixture, pairs: Pairs, grid: Discretisation) -> dict[str, float]:
    """What the line of the highest level makes: mean and deviation of a frame, given the one before it."""
    alpha, sigma = _coefficients(grid, met.num_frames)
    gains, shift = torch.eye(met.num_frames, dtype=torch.float64)[-1] / alpha[0], torch.zeros(()).double()
    for upper_mean, lower_mean, covariance, variance in zip(*pairs, strict=True):
        through = gains @ lower_mean + shift
        gains = torch.linalg.solve(variance, gains @ covariance)  # the lowest level leads to itself
        shift = through - gains @ upper_mean
    highest = met.noised(alpha[-1], sigma[-1])
    mean, variance = gains @ highest.mean + shift, gains @ highest.covariance @ gains
    if met.num_frames == 1:
        return {"m1": mean.item(), "s1": variance.sqrt().item()}
    along = gains @ highest.covariance[:, 0]
    slope = along / highest.covariance[0, 0]
    return {
        "c": slope.item(),
        "m2": (mean - slope * highest.mean[0]).item(),
        "s2": (variance - slope * along).sqrt().item(),
    }


def _coefficients(grid: Discretisation, num_frames: int) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N F"]]:
    """Of every level at the last frame, after clean ones."""
    at = SCHEDULE.at(grid.levels(SCHEDULE)[:, None])
    alpha, sigma = (c[:, :, 0, 0, 0] for c in at)
    clean = torch.ones(len(alpha), num_frames - 1, dtype=torch.float64)
    return torch.cat([clean, alpha], 1), torch.cat([0 * clean, sigma], 1)


def _of_training(data: GaussianMixture, grid: Discretisation) -> Pairs:
    """One frame of data and one noise at both levels."""
    alpha, sigma = _coefficients(grid, data.num_frames)
    both = alpha[:-1, :, None] * data.covariance * alpha[1:, None] + torch.diag_embed(sigma[:-1] * sigma[1:])
    upper = data.noised(alpha[1:], sigma[1:])
    return Pairs(upper.mean, alpha[:-1] * data.mean, both, upper.covariance)


def _of_distillation(
    met: GaussianMixture, data: GaussianMixture, loss: ConsistencyDistillation, precision: Precision
) -> Pairs:
    """Upper points of noised frames, and where a step of the exact score leads from each: by quadrature."""
    alpha, sigma = _coefficients(loss.grid, met.num_frames)
    nodes = normal_nodes(met.num_frames, precision)
    upper = met.noised(alpha[1:], sigma[1:]).points(nodes.z)  # (components, nodes, steps, frames)
    weights = (met.shares[:, None] * nodes.weights)[..., None, None]
    levels, shape = loss.grid.levels(SCHEDULE), upper.shape[:-1]
    t, t_next = (at.expand(shape).reshape(-1, 1) for at in (levels[1:], levels[:-1]))
    points, teacher = upper.reshape(-1, met.num_frames, 1, 1, 1), ExactDenoiser(lambda: data)
    context, x_t = points[:, :-1], points[:, -1:]

    def denoise(x_t: Video, t: NoiseLevel) -> Video:
        clip, at = torch.cat([context, x_t], 1), torch.cat([torch.zeros_like(context[..., 0, 0, 0]), t], 1)
        return teacher.beside(clip, at, clip)[:, -1:]

    x_next = SOLVERS[loss.solver](SCHEDULE, x_t, t, t_next, denoise, torch.Generator())
    lower = torch.cat([context, x_next], 1).view_as(upper)

    def mean(values: Tensor) -> Tensor:
        return (weights * values).sum((0, 1))

    apart = upper - mean(upper)
    covariance, variance = (torch.einsum("knsf,knsg->sfg", weights * values, apart) for values in (lower, apart))
    return Pairs(mean(upper), mean(lower), covariance, variance)
