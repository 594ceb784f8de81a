import numpy as np
import pytest
import torch

from pipeline.evaluation.frechet import frechet_distance
from pipeline.evaluation.fvd import fvd
from pipeline.streams import numpy_stream


def three_sets(rng, num_samples, shift=0.3):
    sets = torch.randn(3, num_samples, 6, generator=rng, dtype=torch.float64)
    return sets[0] + shift, sets[1], sets[2]


def test_excess_is_what_generated_clips_add_to_the_floor(rng):
    generated, reference, held_out = three_sets(rng, 200)
    result = fvd(generated, reference, held_out, num_bootstraps=5, rng=numpy_stream(0, "bootstrap"))
    assert result.value == frechet_distance(generated, reference)
    assert result.floor == frechet_distance(held_out, reference)
    assert result.excess == result.value - result.floor
    assert result.num_clips == 200


def test_intervals_hold_the_estimate_and_narrow_with_more_clips(rng):
    widths = []
    for num_samples in (100, 1600):
        result = fvd(*three_sets(rng, num_samples), num_bootstraps=200, rng=numpy_stream(0, "bootstrap"))
        assert result.interval[0] < result.excess < result.interval[1]
        assert result.value_interval[0] < result.value < result.value_interval[1]
        widths.append(result.interval[1] - result.interval[0])
    assert widths[1] < widths[0] / 2  # 1/4 by the square root of n


def test_interval_covers_the_truth_about_as_often_as_it_says(rng):
    """The excess of a shift by s in d dimensions is d s^2, whatever n is: the biases of both distances cancel."""
    covered = []
    for trial in range(40):
        result = fvd(*three_sets(rng, 300), num_bootstraps=80, rng=numpy_stream(trial, "bootstrap"))
        covered.append(result.interval[0] <= 6 * 0.3**2 <= result.interval[1])
    assert np.mean(covered) >= 0.85


def test_equal_draws_give_equal_intervals(rng):
    sets = three_sets(rng, 50)
    first, second = (fvd(*sets, num_bootstraps=10, rng=numpy_stream(3, "bootstrap")) for _ in range(2))
    assert first == second


def test_sets_of_different_sizes_are_refused(rng):
    generated, reference, held_out = three_sets(rng, 50)
    with pytest.raises(ValueError, match="generated 40, reference 50, held out 50"):
        fvd(generated[:40], reference, held_out, num_bootstraps=2, rng=numpy_stream(0, "bootstrap"))
