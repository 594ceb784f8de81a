"""Knowledge distillation: regression on the ends of the teacher's trajectories."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Generator

from pipeline.diffusion.flow_map import SOLVERS, clean_end
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.scores import real_score
from pipeline.models.denoiser import Denoiser
from pipeline.rules import at_least, one_of


@dataclass(frozen=True)
class Kd:
    """|x0_hat - end of the teacher's flow from x_t|^2. DMD, arXiv:2311.18828, eq. 9; CausVid, arXiv:2412.07772.

    The trajectories start where the rollout has its frames, and are solved as training goes: frames of data that
    were noised have the law of a perfect teacher's own trajectories, and cost no store of them. The teacher is
    asked in the context of the student, which stays as it is. Under full attention the ends would depend on the
    noise of frames that a causal student is yet to make: no single answer fits, and it would learn their mean.
    Hence a causal student has a causal teacher. Causal Forcing, arXiv:2602.02214.
    """

    needs_target: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = True
    follows_flow: ClassVar[bool] = True
    needs_end_level: ClassVar[bool] = False
    divergence: ClassVar[str] = "none: regression of the teacher's trajectories"
    measure: ClassVar[str] = "no divergence, but a regression of the ends of the teacher's flow, of {denoised}"
    bounds_likelihood: ClassVar[bool] = False
    critic_updates: ClassVar[int] = 0
    num_steps: int = 8  # of the teacher's flow, each of t / num_steps
    solver: str = "heun"

    def __post_init__(self) -> None:
        at_least(1, num_steps=self.num_steps)
        one_of(SOLVERS, solver=self.solver)

    def critics(self, teacher: Denoiser | None) -> Denoiser:
        """The teacher, frozen."""
        assert teacher is not None
        return real_score(teacher)

    def student_loss(
        self,
        rollout: Rollout,
        clips: Video,  # noqa: ARG002 - the rollout has them, noised
        critics: Denoiser,
        *,
        schedule: Schedule,
        rng: Generator,
    ) -> Scalar:
        """Mean squared error against the ends, over the frames that count."""
        with torch.no_grad():
            end = clean_end(
                schedule,
                rollout.x_t,
                rollout.t,
                rollout.counts > 0,
                partial(rollout.in_context, critics),
                solver=self.solver,
                num_steps=self.num_steps,
                rng=rng,
            )
        return regression(rollout.x0_hat, end, rollout.counts)


def regression(x0_hat: Video, end: Video, counts: NoiseLevel) -> Scalar:
    """Mean squared error, each frame as often as it counts."""
    error = (x0_hat - end).square().mean(dim=(2, 3, 4)).masked_fill(counts == 0, 0)
    return (counts * error).sum() / counts.sum().clamp_min(torch.finfo(counts.dtype).tiny)
