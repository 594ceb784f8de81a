"""Fréchet video distance beside its floor: what the same number of real clips give, and how sure both are."""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.evaluation.frechet import Features, moments, moments_distance

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Fvd:
    """At n clips on every side; never comparable with one at another n, or of another network.

    value: generated against reference. floor: held-out real clips against reference. excess: value - floor.
    interval: of the excess; value_interval: of the value; both 95 %.
    """

    value: float
    floor: float
    excess: float
    interval: tuple[float, float]
    value_interval: tuple[float, float]
    num_clips: int


def fvd(
    generated: Features, reference: Features, held_out: Features, *, num_bootstraps: int, rng: np.random.Generator
) -> Fvd:
    """FVD (arXiv:1812.01717) of generated clips, its floor, and bootstrap intervals over clips of all three sets.

    Fewer distinct clips in a resample raise every Fréchet distance, so each interval is that of the resampled
    values moved to have their mean at the estimate.

    Raises:
        ValueError: sets of different sizes.
    """
    sizes = {len(generated), len(reference), len(held_out)}
    if len(sizes) > 1:
        raise ValueError(
            f"all sets must have the same number of clips: generated {len(generated)}, reference {len(reference)}, "
            f"held out {len(held_out)}"
        )
    sets = (generated, reference, held_out)
    target = moments(reference)
    value = moments_distance(moments(generated), target)
    floor = moments_distance(moments(held_out), target)
    draws = np.empty((num_bootstraps, 2))
    for draw in range(num_bootstraps):
        ours, theirs, others = (moments(features, resampled(len(features), rng)) for features in sets)
        draws[draw] = moments_distance(ours, theirs), moments_distance(others, theirs)
    return Fvd(
        value=value,
        floor=floor,
        excess=value - floor,
        interval=interval_around(value - floor, draws[:, 0] - draws[:, 1]),
        value_interval=interval_around(value, draws[:, 0]),
        num_clips=len(generated),
    )


def resampled(num_samples: int, rng: np.random.Generator) -> torch.Tensor:
    """How often each sample occurs in a bootstrap resample, float64 (N,)."""
    return torch.from_numpy(rng.multinomial(num_samples, np.full(num_samples, 1 / num_samples)).astype(np.float64))


def interval_around(estimate: float, draws: np.ndarray) -> tuple[float, float]:
    """The percentile interval of `draws`, moved so that their mean is the estimate."""
    low, high = np.quantile(draws - draws.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(estimate + low), float(estimate + high)
