"""Clips whose data have a known density: read out, then measured by it exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from pipeline.data.moving_blob import MovingBlob
from pipeline.data.processes_mixture import GaussianMixture
from pipeline.evaluation.comparison import ClipSets
from pipeline.evaluation.extractors import ByteVideo
from pipeline.evaluation.frechet import Moments, moments, moments_distance

READ_OUT_SHARE = 0.1  # of the noise of the process, which an error of the read-out must not exceed

Paths = Float64[Tensor, "N T 2"]  # (y, x) in pixels


@dataclass(frozen=True)
class Reading:
    """What is read out of a set of clips. paths: of those that are read. num_clips: of all."""

    paths: Paths
    num_clips: int

    @property
    def share(self) -> float:
        """Of clips that are read."""
        return len(self.paths) / self.num_clips


def largest_residual(source: MovingBlob) -> float:
    """Up to which a frame counts as read, as a share of the range of pixels.

    White noise of this size would move a read-out by READ_OUT_SHARE of the smallest noise of the process.
    """
    smallest = min(system.noise for system in source.systems)
    return READ_OUT_SHARE * smallest / source.read_out_error(1.0)


def read(source: MovingBlob, clips: ByteVideo) -> Reading:
    """The paths of clips every frame of which shows a blob and little else; real clips do."""
    found = source.read_out(clips.numpy())
    is_read = (found.residuals <= largest_residual(source)).all(1)
    return Reading(torch.from_numpy(found.positions[is_read]), len(clips))


def step_log_densities(law: GaussianMixture, paths: Paths) -> Float64[Tensor, "N T"]:
    """ln q(z_f | z_<f) of every frame in nats, in the context of the path itself; their sum is ln q of the path."""
    points = paths.flatten(1)
    known = [law.first(end).log_density(points[:, :end]) for end in range(2, points.shape[1] + 1, 2)]
    return torch.stack(known, 1).diff(dim=1, prepend=torch.zeros(len(paths), 1, dtype=torch.float64))


def law_of_frame(law: GaussianMixture, frame: int) -> Moments:
    """Mean and covariance of the position in one frame, from 0."""
    at = slice(2 * frame, 2 * frame + 2)
    eigenvalues, eigenvectors = torch.linalg.eigh(law.covariance[at, at])
    return Moments(law.mean[at], eigenvectors * eigenvalues.sqrt())


def measure(source: MovingBlob, reading: Reading) -> dict[str, Any]:
    """Of one set: the share that is read; of those the mean of ln q in nats, with its standard error, and systems.

    With the sign turned, the mean is the cross-entropy E_p[-ln q] of the law p that made the clips: KL(p || q) plus
    the entropy of p. That of real clips is best; a mean above theirs says that p is narrower than q. system_shares:
    the mean posterior, the shares of the data its prior.
    """
    law = source.law(reading.paths.shape[1])
    points = reading.paths.flatten(1)
    log_density = law.log_density(points)
    num_read, names = len(points), [system.name for system in source.systems]
    shares = law.posterior(points).mean(0).tolist() if num_read else [None] * len(names)
    return {
        "read_share": reading.share,
        "log_density": log_density.mean().item() if num_read else None,
        "standard_error": log_density.std().item() / num_read**0.5 if num_read > 1 else None,
        "system_shares": dict(zip(names, shares, strict=True)),
    }


def compare_known_density(source: MovingBlob, sets: ClipSets) -> dict[str, Any]:
    """Generated clips under the law of the data, beside real ones, and beside real ones through the codec.

    real: as long as `generated`; real_longer: as `longer`. frames: see `by_frame`, of the longer clips.
    """
    real_start = sets.held_out[:, : sets.num_frames]
    clips = {"generated": sets.generated, "longer": sets.longer, "real": real_start, "real_longer": sets.held_out}
    readings = {name: read(source, each) for name, each in (clips | {"codec": sets.reconstructed}).items()}
    return {
        "largest_residual": largest_residual(source),
        "data_shares": {system.name: system.share for system in source.systems},
        **{name: measure(source, reading) for name, reading in readings.items()},
        "frames": by_frame(source, readings["longer"], readings["real_longer"]),
    }


def by_frame(source: MovingBlob, generated: Reading, real: Reading) -> dict[str, Any]:
    """A list a quantity, a number a frame; None where fewer than two clips are read.

    log_density: mean of ln q(z_f | z_<f). mean, cov: of the coordinates y and x, beside those of the law. distance:
    Fréchet, in pixels^2, of mean and covariance from the law's.
    """
    law = source.law(generated.paths.shape[1])
    laws = [law_of_frame(law, frame) for frame in range(generated.paths.shape[1])]
    ours, theirs = frame_moments(generated), frame_moments(real)
    return {
        "index": list(range(1, len(laws) + 1)),
        "log_density": mean_steps(law, generated),
        "log_density_real": mean_steps(law, real),
        "distance": [m and moments_distance(m, at) for m, at in zip(ours, laws, strict=True)],
        "distance_real": [m and moments_distance(m, at) for m, at in zip(theirs, laws, strict=True)],
        **coordinates(ours, ""),
        **coordinates(laws, "_law"),
    }


def mean_steps(law: GaussianMixture, reading: Reading) -> list[float | None]:
    """Of `step_log_densities`, over clips."""
    if len(reading.paths) < 2:
        return [None] * reading.paths.shape[1]
    return step_log_densities(law, reading.paths).mean(0).tolist()


def frame_moments(reading: Reading) -> list[Moments | None]:
    """Of the position in each frame."""
    return [moments(frame) if len(frame) > 1 else None for frame in reading.paths.unbind(1)]


def coordinates(found: Sequence[Moments | None], suffix: str) -> dict[str, list[float | None]]:
    """Mean and covariance of y and x by frame."""
    means = {f"mean_{name}{suffix}": [m and m.mean[i].item() for m in found] for i, name in enumerate("yx")}
    pairs = {"yy": (0, 0), "xx": (1, 1), "yx": (0, 1)}
    return means | {
        f"cov_{name}{suffix}": [m and (m.root[i] @ m.root[j]).item() for m in found]
        for name, (i, j) in pairs.items()
    }
