"""What an objective is: a number to minimise or a field to follow, built for data and a precision."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.quadrature import Precision
from pipeline.models.linear_gaussian import Chain

# Of a student and of the same student without gradient; only fields tell them apart.
Value = Callable[[Chain, Chain], Tensor]
Build = Callable[[GaussianMixture, Precision], Value]


@dataclass(frozen=True)
class Objective:
    """A number to minimise, or a field to follow, once data and precision are chosen."""

    build: Build
    is_field: bool = False  # its zeros are fixed points of training, and need be the optimum of nothing
    applies: Callable[[GaussianMixture], bool] = lambda data: True  # noqa: ARG005
    easier: str | None = None  # the objective at whose optima the search starts too


def several_frames(data: GaussianMixture) -> bool:
    return data.num_frames > 1


def weighted_sum(*terms: tuple[float, Build]) -> Build:
    """Of what a loss of several terms minimises."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        built = [(weight, term(data, precision)) for weight, term in terms]
        return lambda chain, frozen: torch.stack([weight * term(chain, frozen) for weight, term in built]).sum()

    return build


def per_frame(term: Build) -> Build:
    """Over the number of frames: of a loss that is a mean over clips and frames."""

    def build(data: GaussianMixture, precision: Precision) -> Value:
        value = term(data, precision)
        return lambda chain, frozen: value(chain, frozen) / data.num_frames

    return build
