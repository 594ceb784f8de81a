"""How far estimators of divergences are off, by the number of draws, on pairs whose divergence is known."""

import statistics
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.processes import LinearGaussian, Mode, PersistentModes, Process
from pipeline.data.processes_mixture import GaussianMixture
from pipeline.interfaces import Progress
from pipeline.laboratory.estimators import (
    BOTH_DENSITIES,
    CLASSIFIER_BOUND,
    NORMAL_95,
    Estimate,
    LogDensities,
    both_densities,
    classifier_bounds,
)
from pipeline.laboratory.laws import chain_law
from pipeline.laboratory.reached import Standing
from pipeline.laboratory.verdicts import STUDENT_T
from pipeline.models.linear_gaussian import STUDENTS, Chain, check_student
from pipeline.rules import at_least
from pipeline.streams import stream, stream_seed
from pipeline.unit import Metrics


@dataclass(frozen=True)
class Pair:
    """Data and a Gaussian student of few parameters, in the order of their names: all divergences are known."""

    process: Process
    student: str
    parameters: tuple[float, ...]

    def __post_init__(self) -> None:
        names = check_student(self.student, self.process.num_frames).names
        if len(self.parameters) != len(names):
            raise ValueError(f"parameters must be {', '.join(names)}, got {self.parameters}")

    @property
    def law(self) -> GaussianMixture:
        """That of the student."""
        return chain_law(self._chain, self.process.num_frames)

    @property
    def _chain(self) -> Chain:
        return STUDENTS[self.student].chain(*torch.tensor(self.parameters, dtype=torch.float64))

    def exact(self) -> dict[str, float]:
        """By quadrature; the divergences of two Gaussians but for Jensen and Shannon's in closed form."""
        form = STUDENTS[self.student]
        reached = Standing(self.process.law).of(form, dict(zip(form.names, self.parameters, strict=True)))
        assert reached.forward_kl is not None
        assert reached.reverse_kl is not None
        assert reached.jensen_shannon is not None
        return {
            "forward_kl": reached.forward_kl,
            "reverse_kl": reached.reverse_kl,
            "jensen_shannon": reached.jensen_shannon,
        }


TWO_MODES = PersistentModes((0.75, 0.25), (Mode(0.0, 0.5, 0.9, 0.0, 0.3), Mode(2.0, 1.0, -0.3, 1.5, 0.6)))
TIED = (1.2, 0.6, 0.8)  # of an autoregression whose first frame, slope and noise all differ from those of data
PAIRS = {
    **{f"gaussian_{frames}": Pair(LinearGaussian((0.8,), frames), "tied", TIED) for frames in (2, 4, 8)},
    "mixture_2": Pair(TWO_MODES, "frame_by_frame", (0.5, 1.1, 0.4, 0.0, 0.6)),
}


@dataclass(frozen=True)
class EstimatorBias:
    """Both estimators on every pair of PAIRS, at every number of draws, `num_repeats` times."""

    seed: int
    num_samples: tuple[int, ...] = (512, 2048, 8192)
    num_repeats: int = 4
    num_threads: int = 1

    def __post_init__(self) -> None:
        at_least(2, num_repeats=self.num_repeats)
        at_least(16, **{f"num_samples[{k}]": number for k, number in enumerate(self.num_samples)})

    def run(self, directory: Path, inputs: Mapping[str, Path]) -> Generator[Progress, None, Metrics]:  # noqa: ARG002
        """One pair after another; `estimates` has a row for each divergence, estimator and number of draws."""
        torch.set_num_threads(self.num_threads)
        rows, total = [], len(PAIRS) * len(self.num_samples)
        yield Progress(0, total)
        for name, pair in PAIRS.items():
            exact = pair.exact()
            for number in self.num_samples:
                about = {"pair": name, "dimensions": pair.process.num_frames, "num_samples": number}
                for divergence, found in self._repeated(name, pair, number):
                    known = {"divergence": divergence, "exact": exact[divergence], "estimator": found.estimator}
                    rows.append({**about, **known, "estimate": found.value, "low": found.low, "high": found.high})
                yield Progress(len(rows) // (2 * len(exact)), total)
        return {"estimates": rows}

    def _repeated(self, name: str, pair: Pair, number: int) -> list[tuple[str, Estimate]]:
        """The mean over repeats of every divergence by every estimator, and the interval of this mean."""
        values: dict[tuple[str, str], list[float]] = {}
        for repeat in range(self.num_repeats):
            data, student = pair.process.law, pair.law
            x = data.sample(number, stream(self.seed, f"{name}_{number}_data", repeat))
            y = student.sample(number, stream(self.seed, f"{name}_{number}_student", repeat))
            at_x, at_y = (LogDensities(data.log_density(at), student.log_density(at)) for at in (x, y))
            found = {
                BOTH_DENSITIES: both_densities(at_x, at_y),
                CLASSIFIER_BOUND: classifier_bounds(x, y, data, seed=stream_seed(self.seed, "classifier", repeat)),
            }
            for estimator, estimates in found.items():
                for divergence, estimate in estimates.items():
                    values.setdefault((divergence, estimator), []).append(estimate.value)
        return [(divergence, _mean_of_repeats(seen, estimator)) for (divergence, estimator), seen in values.items()]


def _mean_of_repeats(values: list[float], estimator: str) -> Estimate:
    """With Student's interval: repeats are few."""
    value = statistics.mean(values)
    half = STUDENT_T.get(len(values), NORMAL_95) * statistics.stdev(values) / len(values) ** 0.5
    return Estimate(value, value - half, value + half, estimator)
