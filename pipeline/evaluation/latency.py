"""What a clip costs: denoiser calls, counted; frames a second and latency of the first frame, measured."""

import statistics
from collections.abc import Callable

from pipeline.evaluation.sampling import SamplingCost
from pipeline.rules import at_least


def sampling_cost(sample_one: Callable[[int], SamplingCost], num_frames: int, *, num_runs: int) -> dict[str, float]:
    """Medians over runs of one clip alone, after one run that is not counted.

    sample_one: makes one clip of `num_frames` frames; its argument numbers the run. Times are of this machine.
    """
    at_least(1, num_runs=num_runs)
    sample_one(0)
    costs = [sample_one(run + 1) for run in range(num_runs)]
    return {
        "calls_per_frame": statistics.median(cost.calls_per_frame for cost in costs),
        "frames_per_s": num_frames / statistics.median(cost.seconds for cost in costs),
        "latency_s": statistics.median(cost.latency_s for cost in costs),
        "num_runs": num_runs,
    }
