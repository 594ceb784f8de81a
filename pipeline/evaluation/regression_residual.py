"""How far a student's answers are from the ends of stored trajectories: what its regression leaves."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.schedule import Schedule
from pipeline.evaluation.sampling import load_student
from pipeline.interfaces import Progress, Video
from pipeline.methods.on_trajectories import OnTrajectories
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least
from pipeline.streams import stream
from pipeline.unit import Metrics, digest_of


class Residuals(NamedTuple):
    """|x0_hat - end|^2 of every frame, as a share of the variance of such ends, and the level it was asked at."""

    share: Float[Tensor, "N T"]
    t: Float[Tensor, "N T"]


@dataclass(frozen=True)
class RegressionResidual:
    """The mean squared error of a student on a teacher's trajectories, by level and by frame, in float64.

    As a share of the variance of the ends: 1 is what their mean alone leaves, 0 an end that the student knows. The
    context is that of `method`; every frame is asked at every level of its sampler.
    """

    method: OnTrajectories
    batch_size: int = 128
    seed: int = 0
    num_threads: int = 1

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, num_threads=self.num_threads)

    def run(
        self,
        directory: Path,  # noqa: ARG002 - metrics alone
        inputs: Mapping[str, Path],
    ) -> Generator[Progress, None, Metrics]:
        """inputs: "codec", "student", "trajectories". Raises ValueError where they do not fit each other."""
        torch.set_num_threads(self.num_threads)
        latents = digest_of(inputs["codec"] / "codec.json")
        student = load_student(inputs["student"], latents=latents)
        schedule = student.spec.schedule
        clips = self.method.read(inputs["trajectories"], latents=latents, schedule=schedule)
        parts, num_levels = [], self.method.sampler.num_steps
        for turn in range(num_levels):
            parts.append(self.measure(student, clips, schedule, turn))
            yield Progress(turn + 1, num_levels)
        return self.summary(Residuals(*(torch.cat(column) for column in zip(*parts, strict=True))))

    @torch.no_grad()
    def measure(self, student: Denoiser, clips: Video, schedule: Schedule, turn: int) -> Residuals:
        """Every trajectory once, every chunk at one of the levels: in each turn at another, in a drawn order."""
        errors, levels, ends = [], [], []
        for index, batch in enumerate(clips.split(self.batch_size)):
            first = self.method.draw_steps(batch, stream(self.seed, "residual", index))
            step = (first + turn) % self.method.sampler.num_steps
            rollout = self.method.at_steps(student, batch, step, schedule=schedule)
            assert rollout.target is not None
            errors.append((rollout.x0_hat - rollout.target).double().square().mean(dim=(2, 3, 4)))
            levels.append(rollout.t)
            ends.append(rollout.target.double())
        variance = torch.cat(ends).var(dim=0).mean(dim=(1, 2, 3))
        return Residuals(torch.cat(errors) / variance, torch.cat(levels))

    def summary(self, residuals: Residuals) -> Metrics:
        """Means: over all, by level from the noisiest on, and by frame at the noisiest."""
        share, t = residuals
        clip = share.mean(1).unflatten(0, (self.method.sampler.num_steps, -1)).mean(0)  # of one trajectory
        levels = t.unique().flip(0)
        return {
            "mean": share.mean().item(),
            "standard_error": (clip.std() / len(clip) ** 0.5).item(),
            "levels": levels.tolist(),
            "by_level": [share[t == level].mean().item() for level in levels],
            "by_frame_from_noise": [
                row[at == levels[0]].mean().item() for row, at in zip(share.T, t.T, strict=True)
            ],
        }
