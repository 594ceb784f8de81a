from dataclasses import asdict

import numpy as np
import pytest
import torch

from pipeline.evaluation import coverage
from pipeline.evaluation.coverage import Coverage, prdc


def by_loops(generated, real, k):
    """The definitions, one pair at a time."""

    def distance(a, b):
        return float((a - b).square().sum().sqrt())

    def radius(sample, among):
        return sorted(distance(sample, other) for other in among)[k]

    real_radius = [radius(sample, real) for sample in real]
    generated_radius = [radius(sample, generated) for sample in generated]
    balls = [[distance(g, r) < radius for r, radius in zip(real, real_radius, strict=True)] for g in generated]
    return Coverage(
        precision=float(np.mean([any(row) for row in balls])),
        recall=float(
            np.mean(
                [
                    any(distance(r, g) < radius for g, radius in zip(generated, generated_radius, strict=True))
                    for r in real
                ]
            )
        ),
        density=float(np.sum(balls) / (k * len(generated))),
        coverage=float(np.mean(np.any(balls, axis=0))),
    )


@pytest.mark.parametrize("chunk", [7, 512])
def test_prdc_equals_the_definitions(rng, monkeypatch, chunk):
    monkeypatch.setattr(coverage, "CHUNK", chunk)
    real = torch.randn(40, 3, generator=rng, dtype=torch.float64)
    generated = 0.7 * torch.randn(30, 3, generator=rng, dtype=torch.float64) + 0.8
    measured, expected = prdc(generated, real, num_neighbours=3), by_loops(generated, real, 3)
    assert asdict(measured) == pytest.approx(asdict(expected))


def test_equal_sets_are_precise_and_covered(rng):
    x = torch.randn(60, 4, generator=rng, dtype=torch.float64)
    result = prdc(x, x.clone())
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)


def test_sets_far_apart_share_nothing(rng):
    x = torch.randn(60, 4, generator=rng, dtype=torch.float64)
    assert prdc(x + 100, x) == Coverage(precision=0.0, recall=0.0, density=0.0, coverage=0.0)


def test_a_dropped_mode_costs_recall_and_coverage_but_not_precision(rng):
    modes = torch.randn(2, 100, 3, generator=rng, dtype=torch.float64)
    modes[1] += 50
    held_out = torch.randn(200, 3, generator=rng, dtype=torch.float64)
    result = prdc(held_out, modes.flatten(0, 1))
    assert result.precision > 0.9
    assert 0.4 < result.recall < 0.55
    assert result.coverage < 0.55


def test_more_neighbours_than_clips_are_refused(rng):
    x = torch.randn(5, 2, generator=rng, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"num_neighbours must be in \[1, 4\]"):
        prdc(x, x, num_neighbours=5)
