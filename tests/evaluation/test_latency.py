import pytest

from pipeline.evaluation.latency import sampling_cost
from pipeline.evaluation.sampling import SamplingCost


def test_cost_is_the_median_of_the_runs_after_the_first():
    costs = {0: (99.0, 99.0), 1: (2.0, 0.5), 2: (4.0, 0.1), 3: (8.0, 0.3)}
    seen = []

    def sample_one(run):
        seen.append(run)
        return SamplingCost(*costs[run], calls_per_frame=5.0)

    result = sampling_cost(sample_one, 8, num_runs=3)
    assert seen == [0, 1, 2, 3]
    assert result == {"calls_per_frame": 5.0, "frames_per_s": 2.0, "latency_s": 0.3, "num_runs": 3}
    with pytest.raises(ValueError, match="num_runs must be at least 1, got 0"):
        sampling_cost(sample_one, 8, num_runs=0)
