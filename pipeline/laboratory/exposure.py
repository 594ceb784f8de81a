"""Exposure bias: what becomes of a student's frames, one after another, far past the length of its training."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.processes import LinearGaussian
from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.interfaces import Progress
from pipeline.laboratory.hidden_noise import HiddenNoise
from pipeline.laboratory.measure import Measure
from pipeline.laboratory.students import GeneratingStudent
from pipeline.models.linear_gaussian import LinearGaussianSpec, LinearGaussianStudent
from pipeline.rules import at_least
from pipeline.streams import noise_like, stream
from pipeline.unit import Metrics


@dataclass(frozen=True)
class Exposure:
    """A tied student on an autoregression of order one, as `measure` trains it, then rolled out by every sampler.

    num_frames: of the roll-outs; num_rollouts: how many. Of each sampler, by frame: mean, variance, correlation
    with the frame before, and the reverse KL of the frame given the one before, in nats a pixel, whose sum is that
    of the path.
    """

    measure: Measure
    samplers: Mapping[str, Sampler]
    num_frames: int = 24
    num_rollouts: int = 2**16

    def __post_init__(self) -> None:
        process = self.measure.process
        if not (isinstance(process, LinearGaussian) and len(process.coefficients) == 1):
            raise ValueError(f"process must be an autoregression of order one, got {process}")
        if self.measure.student != "tied":
            raise ValueError(f"student must be tied, to make any number of frames, got {self.measure.student}")
        at_least(2, num_frames=self.num_frames, num_rollouts=self.num_rollouts)

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:
        """Train, then roll out."""
        metrics = yield from self.measure.run(directory, inputs)
        process = self.measure.process
        assert isinstance(process, LinearGaussian)
        rollouts = {}
        for name, sampler in self.samplers.items():
            x = roll_out(
                metrics["parameters"],
                sampler,
                num_frames=self.num_frames,
                num_rollouts=self.num_rollouts,
                rng=stream(self.measure.seed, "rollouts"),
            )
            rollouts[name] = by_frame(x, process.coefficients[0])
        return {**metrics, "rollouts": rollouts}


def roll_out(
    parameters: Mapping[str, float],
    sampler: Sampler,
    *,
    num_frames: int,
    num_rollouts: int,
    rng: torch.Generator,
) -> Tensor:
    """Clips (N, F) of one pixel, by the procedure with which everything is sampled."""
    own = LinearGaussianStudent(LinearGaussianSpec("tied", num_frames), **parameters)
    student = GeneratingStudent(own, "causal")
    noise = noise_like(torch.zeros(num_rollouts, num_frames, 1, 1, 1, dtype=torch.float64), rng)
    with torch.no_grad():
        made = generate(student, noise, schedule=student.spec.schedule, sampler=sampler, rng=rng)
    return made.x0_hat[:, :, 0, 0, 0]


def by_frame(x: Tensor, slope: float) -> Metrics:
    """What frames are like, and their reverse KL from the autoregression given the frame before, as Gaussians."""
    variance, mean = torch.var_mean(x, dim=0)
    noise = 1 - slope**2
    past, now = x[:, :-1], x[:, 1:]
    covariance = ((past - mean[:-1]) * (now - mean[1:])).mean(0)
    own_slope = covariance / variance[:-1]
    rest = variance[1:] - own_slope * covariance
    # the two conditionals differ by shift + (own_slope - slope) (x - mean) in their means
    shift = mean[1:] - slope * mean[:-1]
    apart = (own_slope - slope).square() * variance[:-1] + shift.square()
    reverse_kl = (rest / noise + apart / noise - 1 - (rest / noise).log()) / 2
    return {
        "mean": mean.tolist(),
        "variance": variance.tolist(),
        "correlation": (covariance / (variance[:-1] * variance[1:]).sqrt()).tolist(),
        "reverse_kl_by_frame": reverse_kl.tolist(),
    }


def predicted_variance(parameters: Mapping[str, float], sampler: Sampler, num_frames: int) -> list[float]:
    """Closed form: v_f = k^2 (v_{f-1} + n^2) + r + tau^2, n^2 the noise on the context and tau^2 the hidden one.

    k and r are what the student's own law makes of a context so noised, u its own variance of the frame before:
    k = c u / (u + n^2), r = s^2 + c^2 u - k^2 (u + n^2). Without noise on the context c and s^2.
    """
    hidden = sampler.step.std**2 if isinstance(sampler.step, HiddenNoise) else 0.0
    level = sampler.context_noise
    on_context = (level / (1 - level)) ** 2
    c, noise, own = parameters["c"], parameters["s"] ** 2, parameters["s1"] ** 2
    values = [own + hidden]
    while len(values) < num_frames:
        k = c * own / (own + on_context)
        rest = noise + c**2 * own - k**2 * (own + on_context)
        values.append(k**2 * (values[-1] + on_context) + rest + hidden)
        own = c**2 * own + noise
    return values
