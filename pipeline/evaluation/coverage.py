"""Precision and recall, density and coverage: are generated clips like real ones, and do all kinds occur."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from pipeline.evaluation.frechet import Features

CHUNK = 512  # rows of a distance matrix at once


@dataclass(frozen=True)
class Coverage:
    """Shares in [0, 1], except density, which exceeds 1 where generated clips crowd in the densest places."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(generated: Features, real: Features, *, num_neighbours: int = 5) -> Coverage:
    """Balls around each clip that just reach its k-th neighbour among its own kind make up each manifold.

    precision: share of generated clips inside a real ball; recall: share of real clips inside a generated one
    (arXiv:1904.06991, eq. 1 and 2). density: real balls that a generated clip is inside of, over k; coverage: share
    of real balls with a generated clip inside (arXiv:2002.09797, eq. 4 and 5).

    Raises:
        ValueError: a set has no k neighbours.
    """
    smallest = min(len(generated), len(real))
    if not 1 <= num_neighbours < smallest:
        raise ValueError(
            f"num_neighbours must be in [1, {smallest - 1}] for {smallest} clips, got {num_neighbours}"
        )
    real_radii, generated_radii = radii(real, num_neighbours), radii(generated, num_neighbours)
    in_real_balls, is_recalled, is_covered = [], [], torch.zeros(len(real), dtype=torch.bool)
    for part in generated.split(CHUNK):
        is_inside = torch.cdist(part, real) < real_radii
        in_real_balls.append(is_inside.sum(dim=1))
        is_covered |= is_inside.any(dim=0)
    for part in real.split(CHUNK):
        is_recalled.append((torch.cdist(part, generated) < generated_radii).any(dim=1))
    counts = torch.cat(in_real_balls).double()
    return Coverage(
        precision=float((counts > 0).double().mean()),
        recall=float(torch.cat(is_recalled).double().mean()),
        density=float(counts.mean() / num_neighbours),
        coverage=float(is_covered.double().mean()),
    )


def radii(features: Features, num_neighbours: int) -> Float64[Tensor, " N"]:
    """Distance of each sample to its k-th neighbour, itself not counted."""
    parts = [
        torch.cdist(part, features).kthvalue(num_neighbours + 1, dim=1).values for part in features.split(CHUNK)
    ]
    return torch.cat(parts)
