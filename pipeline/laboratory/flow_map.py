"""Where students that are lines end under the losses that regress a flow map: in closed form, or by quadrature.

Consistency training and distillation compare answers at neighbouring levels of a grid. A line at every level,
f_n(x) = a_n x + b_n, is then found level by level from the lowest on: the least squares of f_n(x_lower) on x_upper.
Mean flow compares steps between any two levels.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.processes import Process
from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.flow_map import SOLVERS, Discretisation
from pipeline.diffusion.schedule import FlowMatching, Schedule
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.optima import Optimum, Prediction
from pipeline.laboratory.quadrature import CHECK, FINE, Precision, normal_nodes
from pipeline.laboratory.reached import Standing
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.loss import Loss
from pipeline.losses.mean_flow import MeanFlow
from pipeline.models.linear_gaussian import STUDENTS

FlowMapLoss = ConsistencyTraining | ConsistencyDistillation | MeanFlow
AnyLoss = Loss | FlowMapLoss  # the same to people; a type checker wants the ClassVars of a protocol
SCHEDULE: Schedule = FlowMatching()
STUDENT = "gaussian"  # whose law the frames have that a line makes of pure noise
GRID = Discretisation(8)  # so few levels that their errors set the losses apart; of many, all keep data's moments
PREDICTED: dict[str, FlowMapLoss] = {  # of every process of one frame
    "consistency_training": ConsistencyTraining(GRID, metric="l2"),
    "consistency_distillation": ConsistencyDistillation(GRID),
}
MOMENTS = "l2_flow_bidirectional"  # the objective whose optimum has the moments of data, as mean flow's line has


class Pairs(NamedTuple):
    """Second moments of both points of a pair, at every step of a grid."""

    upper_mean: Float[Tensor, " steps"]
    lower_mean: Float[Tensor, " steps"]
    covariance: Float[Tensor, " steps"]
    variance: Float[Tensor, " steps"]  # of the upper point


def predict_flow_map(process: Process, loss: AnyLoss, *, precision: Precision = FINE) -> dict[str, float]:
    """Mean m and standard deviation s of the answers at the highest level: where it is pure noise, of the frames.

    Only second moments count. Under consistency training s is the standard deviation of data times the correlations
    of all neighbouring levels, which lose a little at every step. Mean flow finds the flow of a Gaussian with the
    moments of data, which keeps them: with z its mean and variance change as those of data, and what is left of the
    velocity has no correlation with z.

    Raises:
        ValueError: a loss whose fixed point is not known, or a process of several frames.
    """
    if process.num_frames != 1:
        raise ValueError(f"num_frames must be 1 for the flow map of a line, got {process.num_frames}")
    check_flow_map(loss)
    law = process.law
    mean, std = law.mean.item(), law.covariance.sqrt().item()
    match loss:
        case MeanFlow():
            return {"m": mean, "s": std}
        case ConsistencyTraining():
            pairs = _of_training(law, loss.grid)
        case ConsistencyDistillation():
            pairs = _of_distillation(law, loss.grid, loss.solver, precision)
        case _:
            raise AssertionError(loss)
    alpha, sigma = _coefficients(loss.grid)
    gain, shift = 1 / alpha[0], torch.zeros_like(alpha[0])  # the lowest level leads to itself
    for upper_mean, lower_mean, covariance, variance in zip(*pairs, strict=True):
        through = gain * lower_mean + shift
        gain = gain * covariance / variance
        shift = through - gain * upper_mean
    highest = law.noised(alpha[-1:], sigma[-1:])
    return {"m": (gain * highest.mean + shift).item(), "s": (gain.abs() * highest.covariance.sqrt()).item()}


def check_flow_map(loss: AnyLoss) -> None:
    """Raises ValueError for a loss whose fixed point among lines is not known."""
    match loss:
        case ConsistencyTraining() | ConsistencyDistillation():
            if loss.metric != "l2":
                raise ValueError(f"metric must be l2, whose best lines are known, got {loss.metric!r}")
            if (loss.grid.curriculum, loss.grid.segments) != ("constant", 1):
                raise ValueError(
                    f"grid must stay as it is and have one segment here: curriculum={loss.grid.curriculum}, "
                    f"segments={loss.grid.segments}"
                )
        case MeanFlow():
            if loss.power != 0:
                raise ValueError(f"power must be 0, whose best lines are known, got {loss.power}")
        case _:
            known = "ConsistencyTraining, ConsistencyDistillation, MeanFlow"
            raise ValueError(f"loss must be one of {known}, got {type(loss).__name__}")


def flow_map_name(loss: AnyLoss) -> str | None:
    """Of the prediction that holds for a loss: consistency has one with all its parameters alone."""
    if isinstance(loss, MeanFlow):
        return MOMENTS if loss.power == 0 else None
    return next((name for name, known in PREDICTED.items() if known == loss), None)


def flow_map_optima(process: Process) -> dict[str, Prediction]:
    """Of every loss in PREDICTED, in the form of the other predictions; none for a process of several frames.

    The gradient of their targets is stopped, so that no function is minimised: fixed points, as of a field.
    """
    if process.num_frames != 1:
        return {}
    standing = Standing(process.law)
    return {name: _prediction(standing, process, loss) for name, loss in PREDICTED.items()}


def _prediction(standing: Standing, process: Process, loss: AnyLoss) -> Prediction:
    found, rougher = (predict_flow_map(process, loss, precision=precision) for precision in (FINE, CHECK))
    reached = standing.of(STUDENTS[STUDENT], found)
    return Prediction(
        best=Optimum(found, None),
        others=(),
        is_field=True,
        integration_error=max(abs(found[name] - rougher[name]) for name in found),
        flat=False,
        forward_kl=reached.forward_kl,
        reverse_kl=reached.reverse_kl,
        kept=reached.kept,
    )


def _coefficients(grid: Discretisation) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    alpha, sigma = (c[:, 0, 0, 0, 0] for c in SCHEDULE.at(grid.levels(SCHEDULE)[:, None]))
    return alpha, sigma


def _of_training(law: GaussianMixture, grid: Discretisation) -> Pairs:
    """One frame of data and one noise at both levels."""
    alpha, sigma = _coefficients(grid)
    mean, variance = law.mean, law.covariance[0, 0]
    return Pairs(
        upper_mean=alpha[1:] * mean,
        lower_mean=alpha[:-1] * mean,
        covariance=alpha[1:] * alpha[:-1] * variance + sigma[1:] * sigma[:-1],
        variance=alpha[1:].square() * variance + sigma[1:].square(),
    )


def _of_distillation(law: GaussianMixture, grid: Discretisation, solver: str, precision: Precision) -> Pairs:
    """Upper points of noised data, and where a step of the exact score leads from each: by quadrature."""
    alpha, sigma = _coefficients(grid)
    nodes = normal_nodes(1, precision)
    upper = law.noised(alpha[1:, None], sigma[1:, None]).points(nodes.z)[..., 0]  # (components, nodes, steps)
    weights = (law.shares[:, None] * nodes.weights)[..., None]
    levels = grid.levels(SCHEDULE)
    t, t_next = (at.expand_as(upper).reshape(-1, 1) for at in (levels[1:], levels[:-1]))
    x_t = upper.reshape(-1, 1, 1, 1, 1)
    lower = SOLVERS[solver](SCHEDULE, x_t, t, t_next, ExactDenoiser(lambda: law), torch.Generator()).view_as(upper)

    def mean(values: Tensor) -> Tensor:
        return (weights * values).sum((0, 1))

    apart = upper - mean(upper)
    return Pairs(mean(upper), mean(lower), mean(apart * lower), mean(apart.square()))
